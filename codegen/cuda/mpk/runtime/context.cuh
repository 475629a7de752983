// What a task body sees: shared memory, the weight ring, and the wait for its events.
//
// A block has three roles, each a branch of the kernel:
//   consumers (warps 0..7)  run the bodies;
//   loader    (warp 8)      walks the same queue ahead of them and streams weights into the ring; it waits for free
//                           stages only, never for an event, because weights depend on nothing;
//   signaller (warp 9)      after each task makes its writes visible and adds to its events, while consumers go on.
#pragma once

#include "mpk/abi.cuh"
#include "mpk/atoms.cuh"
#include "mpk/config.cuh"
#include "mpk/types.cuh"

namespace mpk {

constexpr int kConsumerWarps = 8;
constexpr int kConsumers = 32 * kConsumerWarps;
constexpr int kLoaderWarp = kConsumerWarps;
constexpr int kSignallerWarp = kConsumerWarps + 1;
static_assert(kBlockThreads == 32 * (kSignallerWarp + 1), "the launch must have a warp for every role");
constexpr int kLoaderLanes = kBulkLoads ? 1 : 32;
constexpr int kTaskSlots = 4;  // a slot is rewritten only when the signaller is past it
constexpr int kConsumerBarrier = 1;
constexpr int kTaskBarrier = 2;
constexpr int kPollsPerCheck = 256;

struct alignas(128) Shared {
  unsigned long long full[kRingStages];
  unsigned long long empty[kRingStages];
  Task slot[kTaskSlots];
  int stop[kTaskSlots];  // whether the launch stops after the slot's task: read by consumers and signaller alike
  int aborted;
};

static_assert(sizeof(Shared) <= kRuntimeSharedBytes, "shared memory planned too small for the runtime");

// Position in the ring; loader and consumers each keep one and advance it in the same order.
struct RingPosition {
  int stage = 0;
  unsigned phase = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == kRingStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

__device__ inline void report(const Launch& launch, ErrorCode::Value code, int task, int step, unsigned event,
                              unsigned count, unsigned target) {
  if (atomicAdd(launch.failures, 1u) != 0) return;
  launch.error->code = code;
  launch.error->sm = blockIdx.x;
  launch.error->task = task;
  launch.error->step = step;
  launch.error->event = event;
  launch.error->count = count;
  launch.error->target = target;
  __threadfence_system();
}

// True when counter `event` has reached `target`; false when the wait ran out or another block failed.
__device__ inline bool wait_event(const Launch& launch, unsigned event, unsigned target, int task, int step) {
  const unsigned* counter = launch.events + static_cast<size_t>(event) * kEventStride;
  unsigned count = 0;
  unsigned long long begin = 0;
  while (true) {
    // An acquire load per poll, rather than relaxed polls and one fence: the fence would wait for the memory system.
    for (int poll = 0; poll < kPollsPerCheck; ++poll) {
      count = load_acquire_gpu(counter);
      if (static_cast<int>(count - target) >= 0) return true;
    }
    if (begin == 0) begin = global_timer_ns();
    if (load_relaxed_gpu(launch.failures) != 0) return false;  // not in the error record: that is host memory
    if (global_timer_ns() - begin > launch.spin_limit_ns) {
      report(launch, ErrorCode::kEventTimeout, task, step, event, count, target);
      return false;
    }
  }
}

// Waits for a phase of a ring barrier. The loader and the consumers of one block feed each other, so running out of
// time here is a fault of the hardware or of the kernel itself: nothing sensible can follow, the launch is stopped.
__device__ __forceinline__ void ring_wait(const Launch& launch, unsigned long long* barrier, unsigned parity,
                                          ErrorCode::Value code, int task, int step) {
  if (mbarrier_try_wait(barrier, parity)) return;
  const unsigned long long begin = global_timer_ns();
  while (!mbarrier_try_wait(barrier, parity)) {
    if (global_timer_ns() - begin > 4 * launch.spin_limit_ns) {
      report(launch, code, task, step, 0, 0, parity);
      __trap();
    }
  }
}

struct Context {
  const Launch& launch;
  Shared& shared;
  char* ring;
  char* scratch;
  RingPosition position;
  int thread;
  int step = 0;        // of this launch
  unsigned epoch = 0;  // of all launches since the counters were zeroed
  int task_number = 0;

  __device__ __forceinline__ int warp() const { return thread / 32; }
  __device__ __forceinline__ int lane() const { return thread % 32; }
  __device__ __forceinline__ void sync() const { barrier_sync(kConsumerBarrier, kConsumers); }

  __device__ __forceinline__ void stamp(ProfilePhase::Value phase) const {
    if constexpr (kProfile) {
      if (thread == 0) {
        const size_t record = static_cast<size_t>(step) * kNumTasks + task_number;
        launch.profile[record * ProfilePhase::kCount + phase] = global_timer_ns();
      }
    }
  }

  // Returns when all events of `task` have arrived and their producers' writes are visible to every consumer.
  // False: the launch is being stopped, the body must return at once. Every body calls this exactly once, before
  // it touches an operand that a task of the same step may have written.
  __device__ __forceinline__ bool wait(const Task& task) {
    if (task.num_waits > 0) {
      if (thread < task.num_waits) {
        const unsigned target = task.wait_count[thread] * (epoch + 1);
        if (!wait_event(launch, task.wait_event[thread], target, task_number, step)) shared.aborted = 1;
      }
      sync();
    }
    stamp(ProfilePhase::kReady);
    return shared.aborted == 0;
  }

  // The next stage of the weight ring, once the loader has filled it.
  __device__ __forceinline__ const char* acquire_stage() {
    ring_wait(launch, &shared.full[position.stage], position.phase, ErrorCode::kLoadTimeout, task_number, step);
    return ring + position.stage * kStageBytes;
  }

  // Gives the stage back; every consumer warp calls it once a stage.
  __device__ __forceinline__ void release_stage() {
    __syncwarp();
    if (lane() == 0) mbarrier_arrive(&shared.empty[position.stage]);
    position.advance();
  }
};

// The loader's side of the ring: one lane issues all copies; without bulk loads, which race checkers do not follow, the
// whole warp copies.
struct Loader {
  const Launch& launch;
  Shared& shared;
  char* ring;
  unsigned long long policy;
  RingPosition position;
  int task_number = 0;
  int step = 0;

  // Streams `bytes` (at most kStageBytes, a multiple of 16) into the next stage. False: the launch is being stopped.
  __device__ __forceinline__ bool load_stage(const char* source, unsigned bytes) {
    unsigned long long* empty = &shared.empty[position.stage];
    const unsigned parity = position.phase ^ 1;
    if (!mbarrier_try_wait(empty, parity)) {
      const unsigned long long begin = global_timer_ns();
      while (!mbarrier_try_wait(empty, parity)) {
        if (*static_cast<volatile int*>(&shared.aborted)) return false;
        if (global_timer_ns() - begin > 4 * launch.spin_limit_ns) {
          report(launch, ErrorCode::kRingTimeout, task_number, step, 0, 0, parity);
          __trap();
        }
      }
    }
    unsigned long long* full = &shared.full[position.stage];
    char* target = ring + position.stage * kStageBytes;
    if constexpr (kBulkLoads) {
      mbarrier_expect_bytes(full, bytes);
      bulk_load(target, source, bytes, full, policy);
    } else {
      for (unsigned offset = 16 * (threadIdx.x % 32); offset < bytes; offset += 16 * kLoaderLanes) {
        *reinterpret_cast<Vector16*>(target + offset) = load_vector(source + offset);
      }
      mbarrier_arrive(full);
    }
    position.advance();
    return true;
  }
};

template <typename T>
__device__ __forceinline__ T* operand(const Task& task, int slot) {
  return reinterpret_cast<T*>(task.operand[slot]);
}

}  // namespace mpk
