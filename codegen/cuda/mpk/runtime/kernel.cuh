// The persistent kernel: three roles walk one queue a block, step after step.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

// `Bodies` is printed for each program: its run and load switch on task.body.
template <typename Bodies>
__device__ void consume(Context& context, const Task* queue, int length) {
  constexpr int kWords = sizeof(Task) / 4;
  static_assert(kWords <= kConsumers, "one word a thread");
  const unsigned* words = reinterpret_cast<const unsigned*>(queue);
  const Launch& launch = context.launch;
  const int first_task = launch.queue_begin[blockIdx.x];
  auto fetch = [&](int i) { return context.thread < kWords ? words[i * kWords + context.thread] : 0u; };
  auto keep = [&](int slot, unsigned word) {
    if (context.thread < kWords) reinterpret_cast<unsigned*>(&context.shared.slot[slot])[context.thread] = word;
  };
  int slot = 0;  // goes on from step to step: only so is a slot never rewritten while the signaller reads it
  keep(slot, fetch(0));
  for (int step = 0; step < launch.num_steps; ++step) {
    context.step = step;
    context.epoch = launch.first_step + step;
    if (context.thread == 0 && !wait_event(launch, kStepEvent, kStepArrivals * context.epoch, first_task, step)) {
      context.shared.aborted = 1;
    }
    context.sync();
    for (int i = 0; i < length; ++i) {
      context.task_number = first_task + i;
      const Task& task = context.shared.slot[slot];
      const unsigned next = fetch(i + 1 < length ? i + 1 : 0);
      context.stamp(ProfilePhase::kBegin);
      if (context.shared.aborted == 0) Bodies::run(context, task);
      context.stamp(ProfilePhase::kComputed);
      const int following = (slot + 1) % kTaskSlots;
      keep(following, next);
      if (context.thread == 0) context.shared.stop[slot] = context.shared.aborted;
      barrier_sync(kTaskBarrier, kConsumers + 32);
      if (context.shared.stop[slot]) return;
      slot = following;
    }
  }
}

__device__ inline void signal(const Launch& launch, Shared& shared, int length) {
  const int lane = threadIdx.x % 32;
  const int first_task = launch.queue_begin[blockIdx.x];
  int slot = 0;
  for (int step = 0; step < launch.num_steps; ++step) {
    for (int i = 0; i < length; ++i, slot = (slot + 1) % kTaskSlots) {
      barrier_sync(kTaskBarrier, kConsumers + 32);
      if (shared.stop[slot]) return;
      const Task& task = shared.slot[slot];
      if (lane < task.num_signals) {
        add_release_gpu(launch.events + static_cast<size_t>(task.signal_event[lane]) * kEventStride);
      }
      if constexpr (kProfile) {
        const size_t record = static_cast<size_t>(step) * kNumTasks + first_task + i;
        if (lane == 0) launch.profile[record * ProfilePhase::kCount + ProfilePhase::kSignalled] = global_timer_ns();
      }
    }
  }
}

template <typename Bodies>
__device__ void load(Loader& loader, const Task* queue, int length) {
  for (int step = 0; step < loader.launch.num_steps; ++step) {
    loader.step = step;
    for (int i = 0; i < length; ++i) {
      loader.task_number = loader.launch.queue_begin[blockIdx.x] + i;
      if (!Bodies::load(loader, queue[i])) return;
    }
  }
}

template <typename Bodies>
__device__ void run_kernel(const Launch& launch) {
  extern __shared__ char dynamic_shared[];
  char* ring = dynamic_shared;
  char* scratch = ring + kRingStages * kStageBytes;
  Shared& shared = *reinterpret_cast<Shared*>(scratch + kScratchBytes);
  const int begin = launch.queue_begin[blockIdx.x];
  const int length = launch.queue_begin[blockIdx.x + 1] - begin;
  const Task* queue = launch.tasks + begin;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kRingStages; ++stage) {
      mbarrier_init(&shared.full[stage], kLoaderLanes);
      mbarrier_init(&shared.empty[stage], kConsumerWarps);
    }
    shared.aborted = 0;
    fence_mbarrier_init();
  }
  __syncthreads();
  if (length == 0) return;
  const int warp = threadIdx.x / 32;
  if (warp < kConsumerWarps) {
    Context context{launch, shared, ring, scratch, {}, static_cast<int>(threadIdx.x)};
    consume<Bodies>(context, queue, length);
  } else if (warp == kLoaderWarp) {
    if (threadIdx.x % 32 < kLoaderLanes) {
      Loader loader{launch, shared, ring, evict_first_policy(), {}};
      load<Bodies>(loader, queue, length);
    }
  } else {
    signal(launch, shared, length);
  }
}

}  // namespace mpk
