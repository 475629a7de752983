// Every PTX operation with an ordering, a scope or a hardware unit behind it, named by what it does.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

__device__ __forceinline__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ unsigned load_acquire_gpu(const unsigned* pointer) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(pointer) : "memory");
  return value;
}

// Loads `value` if it is `wanted`: predicated, not branched around. (A pointer that is null where nothing is wanted is
// no way to say so: ptxas 13.0 has been seen to test such a pointer before the null was there.)
__device__ __forceinline__ void load_relaxed_gpu(unsigned& value, const unsigned* pointer, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.relaxed.gpu.global.u32 %0, [%1]; }"
               : "+r"(value)
               : "l"(pointer), "r"(static_cast<unsigned>(wanted)));
}

// Each of the four words is read whole; nothing is said of their order.
__device__ __forceinline__ void load_relaxed_gpu(Vector16& value, const Vector16* pointer, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
               : "+r"(value.word[0]), "+r"(value.word[1]), "+r"(value.word[2]), "+r"(value.word[3])
               : "l"(pointer), "r"(static_cast<unsigned>(wanted)));
}

__device__ __forceinline__ unsigned load_relaxed_gpu(const unsigned* pointer) {
  unsigned value = 0;
  load_relaxed_gpu(value, pointer, true);
  return value;
}

__device__ __forceinline__ void store_relaxed_gpu(unsigned* pointer, unsigned value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(pointer), "r"(value) : "memory");
}

__device__ __forceinline__ void store_relaxed_gpu(Vector16* pointer, const Vector16& value) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(pointer), "r"(value.word[0]),
               "r"(value.word[1]), "r"(value.word[2]), "r"(value.word[3])
               : "memory");
}

// The same between GPUs: what other ranks write, and what is written to them.
__device__ __forceinline__ unsigned load_acquire_sys(const unsigned* pointer) {
  unsigned value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(pointer) : "memory");
  return value;
}

__device__ __forceinline__ void load_relaxed_sys(unsigned& value, const unsigned* pointer, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.relaxed.sys.global.u32 %0, [%1]; }"
               : "+r"(value)
               : "l"(pointer), "r"(static_cast<unsigned>(wanted)));
}

__device__ __forceinline__ void load_relaxed_sys(Vector16& value, const Vector16* pointer, bool wanted) {
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4]; }"
               : "+r"(value.word[0]), "+r"(value.word[1]), "+r"(value.word[2]), "+r"(value.word[3])
               : "l"(pointer), "r"(static_cast<unsigned>(wanted)));
}

__device__ __forceinline__ void store_relaxed_sys(unsigned* pointer, unsigned value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(pointer), "r"(value) : "memory");
}

__device__ __forceinline__ void store_relaxed_sys(Vector16* pointer, const Vector16& value) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(pointer), "r"(value.word[0]),
               "r"(value.word[1]), "r"(value.word[2]), "r"(value.word[3])
               : "memory");
}

// The same into the memory of all ranks: `pointer` is an address of their multicast object. Vectors are of floats
// there; no store changes bits. (PTX ISA, multimem.st.)
__device__ __forceinline__ void multicast_relaxed_sys(unsigned* pointer, unsigned value) {
  asm volatile("multimem.st.relaxed.sys.global.u32 [%0], %1;" ::"l"(pointer), "r"(value) : "memory");
}

__device__ __forceinline__ void multicast_relaxed_sys(Vector16* pointer, const Vector16& value) {
  asm volatile("multimem.st.relaxed.sys.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(pointer),
               "f"(__uint_as_float(value.word[0])), "f"(__uint_as_float(value.word[1])),
               "f"(__uint_as_float(value.word[2])), "f"(__uint_as_float(value.word[3]))
               : "memory");
}

// Between accesses of the same memory by different addresses, as those of a multicast object and of a rank's own.
__device__ __forceinline__ void fence_proxy_alias() { asm volatile("fence.proxy.alias;" ::: "memory"); }

__device__ __forceinline__ void add_release_sys(unsigned* pointer) {
  asm volatile("red.release.sys.global.add.u32 [%0], 1;" ::"l"(pointer) : "memory");
}

// Adds one to a counter in shared memory; the last of several arrivals sees what the others wrote before theirs.
__device__ __forceinline__ unsigned add_acquire_release_block(unsigned* counter) {
  unsigned before;
  asm volatile("atom.acq_rel.cta.shared::cta.add.u32 %0, [%1], 1;"
               : "=r"(before)
               : "r"(shared_address(counter))
               : "memory");
  return before;
}

// Whether this lane is the one of its warp that is chosen, always the same: as the assembler knows that there is one,
// it makes no loop over lanes of what one lane does alone. All lanes call it together.
__device__ __forceinline__ bool elect_one() {
  unsigned chosen;
  asm volatile("{ .reg .pred p; elect.sync _|p, 0xFFFFFFFF; selp.u32 %0, 1, 0, p; }" : "=r"(chosen));
  return chosen != 0;
}

// From thread to thread of a block, by way of shared memory.
__device__ __forceinline__ void store_release_block(unsigned* pointer, unsigned value) {
  asm volatile("st.release.cta.shared::cta.u32 [%0], %1;" ::"r"(shared_address(pointer)), "r"(value) : "memory");
}
__device__ __forceinline__ unsigned load_acquire_block(const unsigned* pointer) {
  unsigned value;
  asm volatile("ld.acquire.cta.shared::cta.u32 %0, [%1];" : "=r"(value) : "r"(shared_address(pointer)) : "memory");
  return value;
}

// One store of 16 bytes to shared memory, not to be moved.
__device__ __forceinline__ void store_shared(void* pointer, const Vector16& value) {
  asm volatile("st.volatile.shared::cta.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(pointer)),
               "r"(value.word[0]), "r"(value.word[1]), "r"(value.word[2]), "r"(value.word[3])
               : "memory");
}

// Adds one after all writes that this thread has made or observed (by a barrier of its block) are visible to the GPU.
__device__ __forceinline__ void add_release_gpu(unsigned* pointer) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(pointer) : "memory");
}

// Read anew at each call: the compiler keeps neither it nor what it makes of it from one call to the next.
__device__ __forceinline__ int thread_number() {
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}

// From here on each thread of the four warps that come here together has `kCount` registers, a multiple of 8.
template <int kCount>
__device__ __forceinline__ void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

__device__ __forceinline__ unsigned long long global_timer_ns() {
  unsigned long long time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

// Barrier of `threads` threads of the block; each id is an independent barrier, 0 is __syncthreads.
__device__ __forceinline__ void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ __forceinline__ void mbarrier_init(unsigned long long* barrier, unsigned arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(unsigned long long* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

__device__ __forceinline__ void mbarrier_expect_bytes(unsigned long long* barrier, unsigned bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Whether the phase of parity `parity` has ended.
__device__ __forceinline__ bool mbarrier_test_wait(unsigned long long* barrier, unsigned parity) {
  unsigned done;
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}

// The same, but waits a short, hardware-chosen time first.
__device__ __forceinline__ bool mbarrier_try_wait(unsigned long long* barrier, unsigned parity) {
  unsigned done;
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(done)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
  return done != 0;
}

__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Between ordinary accesses to global memory and those of the copy engine, either way.
__device__ __forceinline__ void fence_proxy_async_global() { asm volatile("fence.proxy.async.global;" ::: "memory"); }

// Copies 16 bytes to shared memory, asynchronously; `wait` returns when all but the latest groups have arrived.
__device__ __forceinline__ void async_copy_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
__device__ __forceinline__ void async_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// L2 policy for bytes read once a step: they leave first, activations stay.
__device__ __forceinline__ unsigned long long evict_first_policy() {
  unsigned long long policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ unsigned long long evict_normal_policy() {
  unsigned long long policy;
  asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Copies `bytes` (a multiple of 16) to shared memory; completion counts on `barrier`.
__device__ __forceinline__ void bulk_load(void* shared, const void* global, unsigned bytes, unsigned long long* barrier,
                                          unsigned long long policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}

// d += a (16x16, row major) * b (16x8, column major), bf16 in, fp32 accumulators.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3,
                                             unsigned b0, unsigned b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace mpk
