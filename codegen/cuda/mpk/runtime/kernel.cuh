// The persistent kernel: three roles walk one queue a block, step after step, a fourth watches.
#pragma once

#include "mpk/runtime/jitter.cuh"
#include "mpk/runtime/loader.cuh"

namespace mpk {

// A step is over for this block when the loader, too, has read what it reads of the step's state.
__device__ __forceinline__ void wait_for_loader(const Context& context) {
  while (atomicAdd(&block_shared().steps_loaded, 0) <= context.step) {
  }
}

// Ends a task for one warp: the last warp to leave makes the block's writes visible and adds to the task's events.
__device__ __forceinline__ void leave_task(Context& context, int slot) {
  Shared& shared = block_shared();
  __syncwarp();
  if (context.lane() == 0) {
    const Task& task = shared.slot[slot];
    if (task.flags & TaskFlag::kEndsStep) wait_for_loader(context);
    if (task.num_signals > 0 && add_acquire_release_block(&shared.done[slot]) == kConsumerWarps - 1) {
      shared.done[slot] = 0;
      for (int i = 0; i < task.num_signals; ++i) {
        if (kRanks > 1 && task.signal_event[i] == kStepEvent) {
          if constexpr (kMulticasts) fence_proxy_alias();  // what was multicast is read by other addresses
          for (int rank = 0; rank < kRanks; ++rank) add_release_sys(step_counter(shared.launch, rank));
        } else {
          add_release_gpu(shared.launch.events + static_cast<size_t>(task.signal_event[i]) * kEventStride);
        }
      }
    }
  }
  if (context.lane() < kArrivingLanes) mbarrier_arrive(&shared.task_empty[slot]);
  context.stamp(ProfilePhase::kSignalled);
}

// Waits until every block has ended the step before. False: the launch stops here.
__device__ __forceinline__ bool begin_step(Context& context, int step) {
  Shared& shared = block_shared();
  context.step = step;
  context.epoch = shared.launch.first_step + step;
  const int parity = step & 1;
  if (context.thread == 0) {
    wait_event(kStepEvent, kStepArrivals * context.epoch, context.task_number, step);
    if (has_aborted()) shared.stop[parity] = 1;  // never taken back: helpers may look at any time
    shared.rows[step & 3] = shared.launch.row_count ? *shared.launch.row_count : kAllRows;
  }
  context.sync();
  return shared.stop[parity] == 0;
}

// Runs the task in `slot`.
template <typename Body, typename... Arguments>
__device__ __forceinline__ void run_body(Context& context, int slot, Arguments... arguments) {
  Body::run(context, block_shared().slot[slot], arguments...);
}

// `Bodies` is printed for each program: its run and load switch on task.body.
template <typename Bodies>
__device__ __forceinline__ void consume(Context& context, int first_task, int length) {
  Shared& shared = block_shared();
  RingPosition<kTaskSlots> slots;
  for (int step = 0; step < shared.launch.num_steps; ++step) {
    context.task_number = first_task;
    if (!begin_step(context, step)) return;
    for (int i = 0; i < length; ++i, slots.advance()) {
      context.task_number = first_task + i;
      ring_wait(&shared.task_full[slots.stage], slots.phase, ErrorCode::kFetchTimeout, context.task_number, step);
      const Task& task = shared.slot[slots.stage];
      if (task.flags & TaskFlag::kOrdered) context.sync();
      context.stamp(ProfilePhase::kBegin);
      context.stamp(ProfilePhase::kReady);  // of a task that waits for nothing; a wait stamps again
      jitter(Moment::kBeforeTask, context.task_number, step);
      context.thread = thread_number();  // kept across all bodies, it would be spilled
      Bodies::run(context, task.body, slots.stage);
      context.stamp(ProfilePhase::kComputed);
      jitter(Moment::kBeforeSignal, context.task_number, step);
      leave_task(context, slots.stage);
    }
  }
}

// Copies task records to shared memory, as many ahead as there are slots, the next one in registers.
__device__ __forceinline__ void fetch(const Task* queue, int length) {
  Shared& shared = block_shared();
  constexpr int kWords = sizeof(Task) / 4, kPerLane = ceil_div(kWords, 32);
  const int lane = threadIdx.x % 32;
  const unsigned* words = reinterpret_cast<const unsigned*>(queue);
  unsigned mine[kPerLane];
  auto read = [&](int i) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) mine[j] = lane + 32 * j < kWords ? __ldg(&words[i * kWords + lane + 32 * j]) : 0;
  };
  const volatile int* stop = shared.stop;
  RingPosition<kTaskSlots> slots;
  read(0);
  for (int step = 0; step < shared.launch.num_steps; ++step) {
    for (int i = 0; i < length; ++i, slots.advance()) {
      while (!mbarrier_try_wait(&shared.task_empty[slots.stage], slots.phase ^ 1)) {
        if (stop[0] || stop[1]) return;
      }
      unsigned* slot = reinterpret_cast<unsigned*>(&shared.slot[slots.stage]);
#pragma unroll
      for (int j = 0; j < kPerLane; ++j) {
        if (lane + 32 * j < kWords) slot[lane + 32 * j] = mine[j];
      }
      __syncwarp();
      if (lane < kArrivingLanes) mbarrier_arrive(&shared.task_full[slots.stage]);
      read(i + 1 < length ? i + 1 : 0);
    }
  }
}

// The whole warp copies records, kRecordsAhead - 1 ahead; the lanes of the loader stream what a task asks for.
template <typename Bodies>
__device__ __forceinline__ void load(Loader& loader, const Task* queue, int first_task, int length) {
  constexpr int kVectors = sizeof(Task) / 16;
  static_assert(kVectors <= 32 && sizeof(Task) % 16 == 0, "a lane copies 16 bytes of a record");
  Shared& shared = block_shared();
  const int lane = threadIdx.x % 32;
  auto begin_copy = [&](int i) {
    const char* record = reinterpret_cast<const char*>(&queue[i % length]) + 16 * lane;
    char* slot = reinterpret_cast<char*>(&shared.ahead[i % kRecordsAhead]) + 16 * lane;
    if (lane < kVectors) async_copy_16(slot, record);
    async_copy_commit();
  };
  for (int i = 0; i < kRecordsAhead - 1; ++i) begin_copy(i);
  int number = 0;  // goes on from step to step
  for (int step = 0; step < shared.launch.num_steps; ++step) {
    loader.step = step;
    for (int i = 0; i < length; ++i, ++number) {
      loader.task_number = first_task + i;
      begin_copy(number + kRecordsAhead - 1);
      async_copy_wait<kRecordsAhead - 1>();
      __syncwarp();
      bool goes_on = true;
      jitter(Moment::kBeforeLoad, loader.task_number, step);
      if (kLoaderLanes > 1 || elect_one()) goes_on = Bodies::load(loader, shared.ahead[number % kRecordsAhead]);
      if (!__all_sync(0xFFFFFFFFu, goes_on)) {
        if (kLoaderLanes > 1 || elect_one()) loader.drain();
        return;
      }
    }
    if (lane == 0) atomicAdd(&shared.steps_loaded, 1);
  }
}

// Tells the host of the block's first failure. After a role waited in vain for another of its block, stops the launch.
__device__ __forceinline__ void report_failure(const Failure& failure, const Arrivals& arrivals) {
  const Launch& launch = block_shared().launch;
  if (atomicAdd(launch.failures, 1u) == 0) {
    const bool of_event = failure.code == ErrorCode::kEventTimeout;
    launch.error->code = static_cast<int>(failure.code);
    launch.error->sm = block_of_rank();
    launch.error->task = failure.task;
    launch.error->step = failure.step;
    launch.error->event = failure.event;
    launch.error->count = of_event ? arrivals.count : 0;
    launch.error->target = of_event ? arrivals.target : 0;
    __threadfence_system();
  }
  if (failure.code != ErrorCode::kEventTimeout && failure.code != ErrorCode::kDataTimeout) __trap();
}

// One thread: until the others have ended, makes failures of this block known to the rest, and the other way round.
__device__ __forceinline__ void watch() {
  Shared& shared = block_shared();
  const volatile int* ended = &shared.roles_ended;
  bool reported = false;
  for (bool last = false; !last;) {
    __nanosleep(kWatchPeriodNs);
    last = *ended == kConsumerWarps + 1;
    __threadfence_block();
    const Vector16 record = load_vector(&shared.failure);
    const Failure failure{record.word[0], static_cast<int>(record.word[1]), static_cast<int>(record.word[2]),
                          record.word[3]};
    if (!reported && failure.code != ErrorCode::kNone) {
      report_failure(failure, shared.arrivals);
      reported = true;
    }
    if (load_relaxed_gpu(shared.launch.failures) != 0) *static_cast<volatile int*>(&shared.aborted) = 1;
  }
}

// A role's last deed.
__device__ __forceinline__ void end_role() {
  __syncwarp();
  __threadfence_block();
  if (threadIdx.x % 32 == 0) atomicAdd(&block_shared().roles_ended, 1);
}

__device__ __forceinline__ void initialize(const Launch& launch) {
  Shared& shared = block_shared();
  shared.launch = launch;
  shared.spin_ticks = ticks_in(launch.spin_limit_ns);
  for (int stage = 0; stage < kRingStages; ++stage) {
    mbarrier_init(&shared.full[stage], kLoaderLanes);
    mbarrier_init(&shared.empty[stage], kConsumerWarps * kArrivingLanes);
  }
  for (int slot = 0; slot < kTaskSlots; ++slot) {
    mbarrier_init(&shared.task_full[slot], kArrivingLanes);
    mbarrier_init(&shared.task_empty[slot], kConsumerWarps * kArrivingLanes);
    shared.done[slot] = 0;
  }
  shared.stop[0] = shared.stop[1] = 0;
  shared.steps_loaded = 0;
  shared.fetchable = 0;
  shared.aborted = 0;
  shared.failure = {};
  shared.roles_ended = 0;
  fence_mbarrier_init();
}

// The records of all ranks whose blocks this launch holds: the first blocks are those of the first.
struct Launches {
  Launch of[kRanks];
};

template <typename Bodies>
__device__ __forceinline__ void run_kernel(const Launches& launches) {
  const Launch& launch = launches.of[kRanks == 1 ? 0 : blockIdx.x / kRankBlocks];
  const int begin = launch.queue_begin[block_of_rank()];
  const int length = launch.queue_begin[block_of_rank() + 1] - begin;
  const Task* queue = launch.tasks + begin;
  if (shared_address(dynamic_shared) != kSharedBase) __trap();
  if (threadIdx.x == 0) initialize(launch);
  __syncthreads();
  if (length == 0) return;
  const int warp = threadIdx.x / 32;
  if (warp < kConsumerWarps) {
    raise_registers<kConsumerRegisters>();
    Context context{static_cast<int>(threadIdx.x)};
    consume<Bodies>(context, begin, length);
    end_role();
    return;
  }
  lower_registers<kHelperRegisters>();
  if (warp == kLoaderWarp) {
    Loader loader{evict_first_policy(), {}};
    load<Bodies>(loader, queue, begin, length);
    end_role();
  } else if (warp == kFetcherWarp) {
    fetch(queue, length);
  } else if (threadIdx.x == 32 * kWatcherWarp) {
    watch();
  }
}

}  // namespace mpk
