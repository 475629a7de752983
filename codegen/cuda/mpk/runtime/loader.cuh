// The loader: the warp that streams weights into the ring, ahead of the consumers.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

// The loader's side of the ring: one lane issues all copies; without bulk loads, which race checkers do not follow, the
// whole warp copies.
struct Loader {
  unsigned long long policy;
  RingPosition<kRingStages> position;
  int task_number = 0;
  int step = 0;
  int seen_step = -1;
  int fetched_step = -1, fetched_grid = -1;  // of the latest task whose operands it fetched (fetch.cuh)

  // Waits until the next stage is free, and announces `bytes` of it; null: the launch is being stopped.
  __device__ __forceinline__ char* begin_stage(unsigned bytes) {
    return claim_stage(bytes) ? ring_stage(position.stage) : nullptr;
  }

  // The same, without the stage's address; false: the launch is being stopped.
  __device__ __forceinline__ bool claim_stage(unsigned bytes) {
    Shared& shared = block_shared();
    unsigned long long* empty = &shared.empty[position.stage];
    const unsigned parity = position.phase ^ 1;
    Patience patience;
    while (!mbarrier_try_wait(empty, parity)) {
      if (shared_stop()) return false;
      if (patience.ends(kRingPatience)) give_up(ErrorCode::kRingTimeout, task_number, step, 0);
    }
    if constexpr (kBulkLoads) {
      wait_for_copies();
      mbarrier_expect_bytes(&shared.full[position.stage], bytes);
    }
    return true;
  }

  // Starts a copy of `bytes`, a multiple of 16, to somewhere in the stage.
  __device__ __forceinline__ void copy(char* target, const void* source, unsigned bytes) {
    if constexpr (kBulkLoads) {
      bulk_load(target, source, bytes, &block_shared().full[position.stage], policy);
    } else {
      for (unsigned offset = 16 * (threadIdx.x % 32); offset < bytes; offset += 16 * kLoaderLanes) {
        const char* bytes_of_lane = static_cast<const char*>(source) + offset;
        *reinterpret_cast<Vector16*>(target + offset) = load_vector(bytes_of_lane);
      }
    }
  }

  __device__ __forceinline__ void end_stage() {
    if constexpr (!kBulkLoads) mbarrier_arrive(&block_shared().full[position.stage]);
    position.advance();
  }

  // Streams `bytes` (at most kStageBytes, a multiple of 16) into the next stage. False: the launch is being stopped.
  __device__ __forceinline__ bool load_stage(const char* source, unsigned bytes) {
    if (!claim_stage(bytes)) return false;
    copy(ring_stage(position.stage), source, bytes);
    end_stage();
    return true;
  }

  // Waits until the step before is over on all SMs: from there on this thread may read, and copy, what it wrote.
  __device__ __forceinline__ void wait_for_step() {
    if (seen_step == step) return;
    seen_step = step;
    wait_event(kStepEvent, kStepArrivals * (block_shared().launch.first_step + step), task_number, step);
    fence_proxy_async_global();
  }

  // Waits for copies that no consumer will wait for: shared memory must not go while one is on its way.
  __device__ __forceinline__ void drain() {
    for (int i = 0; i < kRingStages; ++i) {
      ring_wait(&block_shared().full[position.stage], position.phase ^ 1, ErrorCode::kLoadTimeout, task_number, step);
      position.advance();
    }
  }

  // Waits until the copies of fewer stages are under way than may be (sm-pipeline, in flight). They end whatever
  // consumers do.
  __device__ __forceinline__ void wait_for_copies() const {
    if constexpr (kStagesInFlight < kRingStages) {
      const int limit = is_behind() ? kMostStagesInFlight : kStagesInFlight;
      const bool wraps = position.stage < limit;
      const int before = position.stage + (wraps ? kRingStages : 0) - limit;
      ring_wait(&block_shared().full[before], position.phase ^ wraps, ErrorCode::kLoadTimeout, task_number, step);
    }
  }

  // Whether no more than kMostStagesInFlight stages are full or under way: whether the one that many before the next is
  // back, that is free to be filled once more.
  __device__ __forceinline__ bool is_behind() const {
    const bool wraps = position.stage >= kMostStagesInFlight;
    const int stage = position.stage + (wraps ? 0 : kRingStages) - kMostStagesInFlight;
    return mbarrier_test_wait(&block_shared().empty[stage], position.phase ^ wraps ^ 1);
  }

  __device__ __forceinline__ bool shared_stop() const {
    const volatile int* stop = block_shared().stop;
    return stop[0] || stop[1];
  }
};

}  // namespace mpk
