// What atoms.cuh of the device library says in PTX, for fibers that take turns: memory is in order, so orders and
// scopes say nothing here. The copy engine finishes a copy some time later.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

inline unsigned shared_address(const void* pointer) { return static_cast<unsigned>(__cvta_generic_to_shared(pointer)); }

template <typename T>
inline T load(const T* pointer) {
  return *const_cast<const volatile T*>(pointer);
}
inline unsigned load_acquire_gpu(const unsigned* pointer) {
  emulation::yield();
  return load(pointer);
}
template <typename T>
inline void load_relaxed_gpu(T& value, const T* pointer, bool wanted) {
  if (wanted) std::memcpy(&value, pointer, sizeof(T));
}
inline unsigned load_relaxed_gpu(const unsigned* pointer) { return load(pointer); }
template <typename T>
inline void store_relaxed_gpu(T* pointer, const T& value) {
  std::memcpy(pointer, &value, sizeof(T));
}
inline unsigned load_acquire_sys(const unsigned* pointer) { return load_acquire_gpu(pointer); }
template <typename T>
inline void load_relaxed_sys(T& value, const T* pointer, bool wanted) {
  load_relaxed_gpu(value, pointer, wanted);
}
template <typename T>
inline void store_relaxed_sys(T* pointer, const T& value) {
  store_relaxed_gpu(pointer, value);
}
template <typename T>
inline void multicast_relaxed_sys(T* pointer, const T& value) {
  const size_t place = reinterpret_cast<size_t>(pointer) - emulation::machine.multicast;
  for (size_t arena : emulation::machine.arenas) store_relaxed_sys(reinterpret_cast<T*>(arena + place), value);
}
inline void fence_proxy_alias() {}
inline void add_release_sys(unsigned* pointer) { ++*pointer; }
inline void add_release_gpu(unsigned* pointer) { ++*pointer; }
inline unsigned add_acquire_release_block(unsigned* counter) { return (*counter)++; }
inline void store_release_block(unsigned* pointer, unsigned value) { *pointer = value; }
inline unsigned load_acquire_block(const unsigned* pointer) {
  emulation::yield();
  return load(pointer);
}
inline void store_shared(void* pointer, const Vector16& value) { std::memcpy(pointer, &value, sizeof value); }

template <int kCount>
inline void raise_registers() {}
template <int kCount>
inline void lower_registers() {}
inline int thread_number() { return threadIdx.x; }
inline unsigned long long global_timer_ns() { return emulation::machine.ticks; }
inline void barrier_sync(int id, int threads) { emulation::barrier(id, threads); }

struct Mbarrier {
  unsigned short pending, expected;
  int bytes : 31;
  unsigned phase : 1;

  void end_phase_if_complete() {
    if (pending > 0 || bytes != 0) return;
    phase ^= 1;
    pending = expected;
  }
};
static_assert(sizeof(Mbarrier) == 8);

inline Mbarrier& of(unsigned long long* barrier) { return *reinterpret_cast<Mbarrier*>(barrier); }
inline void mbarrier_init(unsigned long long* barrier, unsigned arrivals) {
  const unsigned short count = static_cast<unsigned short>(arrivals);
  of(barrier) = {count, count, 0, 0};
}
inline void mbarrier_arrive(unsigned long long* barrier) {
  if (of(barrier).pending-- == 0) {
    std::fprintf(stderr, "an arrival too many in block %u, thread %u\n", blockIdx.x, threadIdx.x);
    std::abort();
  }
  of(barrier).end_phase_if_complete();
}
inline void mbarrier_expect_bytes(unsigned long long* barrier, unsigned bytes) {
  of(barrier).bytes += bytes;
  mbarrier_arrive(barrier);
}
inline bool mbarrier_test_wait(unsigned long long* barrier, unsigned parity) {
  return of(barrier).phase != (parity & 1);
}
inline bool mbarrier_try_wait(unsigned long long* barrier, unsigned parity) {
  if (!mbarrier_test_wait(barrier, parity)) emulation::yield();
  return mbarrier_test_wait(barrier, parity);
}
inline void fence_mbarrier_init() {}
inline void fence_proxy_async_global() {}

inline void async_copy_16(void* shared, const void* global) { std::memcpy(shared, global, 16); }
inline void async_copy_commit() {}
template <int kPending>
inline void async_copy_wait() {}

inline unsigned long long evict_first_policy() { return 0; }
inline unsigned long long evict_normal_policy() { return 0; }
inline bool elect_one() { return emulation::lane() == 0; }
inline void bulk_load(void* shared, const void* global, unsigned bytes, unsigned long long* barrier,
                      unsigned long long) {
  if (bytes % 16 || reinterpret_cast<size_t>(global) % 16 || reinterpret_cast<size_t>(shared) % 16) {
    std::fprintf(stderr, "a bulk copy of %u bytes is not in units of 16\n", bytes);
    std::abort();
  }
  emulation::machine.copies.push_back([=] {
    std::memcpy(shared, global, bytes);
    of(barrier).bytes -= bytes;
    of(barrier).end_phase_if_complete();
  });
}

// Lane (g, q) holds of A rows g and g + 8, of B column g, of D rows g and g + 8 in columns 2q and 2q + 1.
inline void multiply_warp(emulation::Warp& warp) {
  float a[16][16], b[16][8], d[16][8] = {};
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, q = lane % 4;
    for (int half = 0; half < 2; ++half) {
      auto value = [&](int word) {
        return half ? emulation::high_bf16(warp.in[lane][word]) : emulation::low_bf16(warp.in[lane][word]);
      };
      a[g][2 * q + half] = value(0), a[g + 8][2 * q + half] = value(1);
      a[g][2 * q + 8 + half] = value(2), a[g + 8][2 * q + 8 + half] = value(3);
      b[2 * q + half][g] = value(4), b[2 * q + 8 + half][g] = value(5);
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 8; ++n) d[m][n] += a[m][k] * b[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, q = lane % 4;
    const float mine[4] = {d[g][2 * q], d[g][2 * q + 1], d[g + 8][2 * q], d[g + 8][2 * q + 1]};
    std::memcpy(warp.out[lane], mine, sizeof mine);
  }
}

inline void mma_m16n8k16(float (&d)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
  emulation::Warp& warp = emulation::warp();
  const int lane = emulation::lane();
  const unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
  std::memcpy(warp.in[lane], mine, sizeof mine);
  emulation::meet_warp(multiply_warp);
  float product[4];
  std::memcpy(product, warp.out[lane], sizeof product);
  for (int j = 0; j < 4; ++j) d[j] += product[j];
}

}  // namespace mpk
