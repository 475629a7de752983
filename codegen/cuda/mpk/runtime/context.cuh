// What a task body sees: shared memory, the weight ring, and the wait for what other tasks write.
//
// A block has four roles, each a branch of the kernel:
//   consumers (warps 0..7)  run the bodies; no barrier stands between two tasks, so that a warp which is done with one
//                           begins to wait for the next;
//   loader    (warp 8)      walks the same queue ahead of them and streams weights into the ring; it waits for free
//                           stages only, because weights depend on nothing;
//   fetcher   (warp 9)      copies the records of tasks to shared memory, some ahead;
//   watcher   (warp 10)     reports a wait that ran out, and tells this block when another has given up.
#pragma once

#include "mpk/abi.cuh"
#include "mpk/runtime/polling.cuh"

namespace mpk {

constexpr int kConsumerWarps = 8;
constexpr int kConsumers = 32 * kConsumerWarps;
constexpr int kLoaderWarp = kConsumerWarps;
constexpr int kFetcherWarp = kConsumerWarps + 1;
constexpr int kWatcherWarp = kConsumerWarps + 2;
constexpr int kWarps = round_up(kWatcherWarp + 1, 4);  // registers are dealt to four warps at a time
static_assert(kBlockThreads == 32 * kWarps, "the launch must have a warp for every role");
constexpr int kConsumerRegisters = 224, kHelperRegisters = 56;  // a thread; the SM has 65536
static_assert(kConsumers * kConsumerRegisters + (kBlockThreads - kConsumers) * kHelperRegisters <= 65536);
constexpr int kLoaderLanes = kBulkLoads ? 1 : 32;
// Lanes of a warp that arrive at a barrier: one does it for all, but race checkers do not follow that.
constexpr int kArrivingLanes = kBulkLoads ? 1 : 32;
constexpr int kTaskSlots = 4;
constexpr int kRecordsAhead = 4;
constexpr int kConsumerBarrier = 1;
constexpr int kTickBits = 10;  // of clock cycles
constexpr int kWatchPeriodNs = 1000;
// Waits inside a block may last longer than those for other blocks, which they stand behind and which say more.
constexpr int kRingPatience = 4;
static_assert(0 < kStagesInFlight && kStagesInFlight <= kMostStagesInFlight && kMostStagesInFlight <= kRingStages);
constexpr int kAllRows = 1 << 20;  // more than any body has: every row is active

// A wait of a block that ran out, written by one store.
struct alignas(16) Failure {
  unsigned code;
  int task, step;
  unsigned event;  // or operand
};
struct Arrivals {
  unsigned count, target;
};

struct alignas(128) Shared {
  Launch launch;
  unsigned long long full[kRingStages];
  unsigned long long empty[kRingStages];
  unsigned long long task_full[kTaskSlots];
  unsigned long long task_empty[kTaskSlots];
  Task slot[kTaskSlots];
  unsigned done[kTaskSlots];  // consumer warps that have left the slot's task
  Task ahead[kRecordsAhead];  // records of the loader, which is some tasks ahead of the consumers
  int stop[2];                // by parity of the step: whether the launch ends before it
  int rows[4];                // by step: its active rows; warps still in the step before read the one before that
  int steps_loaded;           // steps that the loader has walked through to their end
  unsigned fetchable;         // the latest task whose operands the loader may fetch (fetch.cuh)
  int aborted;                // a wait ran out here or in another block: no further wait is made in this step
  Failure failure;            // a wait of this block that ran out, if there is one
  Arrivals arrivals;          // of its event
  unsigned spin_ticks;        // how long a wait may take
  int roles_ended;            // consumer warps, and the loader's, that have left the kernel
};

static_assert(sizeof(Shared) <= kRuntimeSharedBytes, "shared memory planned too small for the runtime");

// Shared memory: the ring, two scratches, the runtime's own. It begins behind what the system keeps for itself, at a
// constant: asked for the address of a symbol, the compiler looks it up in a special register over and over.
constexpr unsigned kSharedBase = 1024;
extern __shared__ char dynamic_shared[];
__device__ __forceinline__ char* shared_memory() { return static_cast<char*>(__cvta_shared_to_generic(kSharedBase)); }
__device__ __forceinline__ char* ring_stage(int stage) { return shared_memory() + stage * kStageBytes; }
__device__ __forceinline__ char* scratch_half(int half) {
  return shared_memory() + kRingStages * kStageBytes + half * kScratchBytes;
}
__device__ __forceinline__ Shared& block_shared() { return *reinterpret_cast<Shared*>(scratch_half(2)); }

// Position in a ring; both sides keep one and advance it in the same order.
template <int kSize>
struct RingPosition {
  int stage = 0;
  unsigned phase = 0;

  __device__ __forceinline__ void advance() {
    if (++stage == kSize) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// The block's number among those of its rank: one launch may hold the blocks of several ranks.
__device__ __forceinline__ int block_of_rank() { return kRanks == 1 ? blockIdx.x : blockIdx.x % kRankBlocks; }

// The counter that ends a step on `rank`. Several ranks have it behind their arena, where the others reach it.
__device__ __forceinline__ unsigned* step_counter(const Launch& launch, int rank) {
  if constexpr (kRanks == 1) return launch.events + static_cast<size_t>(kStepEvent) * kEventStride;
  return reinterpret_cast<unsigned*>(launch.peer[rank] + kStepCounterOffset);
}

// Nothing in the kernel is a call: what consumers and helpers both called would be compiled for the helpers' registers,
// and the consumers would spill around it. So what stands behind every wait is short; the watcher does the rest. One
// store makes a record whole; of several, the last stays.
__device__ __forceinline__ void give_up(ErrorCode::Value code, int task, int step, unsigned event) {
  Shared& shared = block_shared();
  store_shared(&shared.failure, Vector16{code, static_cast<unsigned>(task), static_cast<unsigned>(step), event});
  *static_cast<volatile int*>(&shared.aborted) = 1;
}

__device__ __forceinline__ bool has_aborted() {
  return *static_cast<const volatile int*>(&block_shared().aborted) != 0;
}

__device__ __forceinline__ unsigned ticks() { return static_cast<unsigned>(clock64() >> kTickBits); }

// A limit of waits, in ticks: some times it must fit a word. A clock cycle lasts at least half a nanosecond.
__device__ __forceinline__ unsigned ticks_in(unsigned long long ns) {
  return static_cast<unsigned>(min(ns >> (kTickBits - 1), 1ull << 29));
}

// Whether tick `begin` is longer ago than `times` what waits may take.
__device__ __forceinline__ bool is_over(unsigned begin, int times = 1) {
  return ticks() - begin > times * block_shared().spin_ticks;
}

// Of one wait: looks at the clock once a poll.
struct Patience {
  unsigned begin = 0;  // the tick of the first look

  __device__ __forceinline__ bool ends(int times = 1) {
    if (begin == 0) begin = ticks();
    return is_over(begin, times);
  }
};

// Returns when counter `event` has reached `target`, or the wait has run out. The end of a step is that of all ranks.
__device__ __forceinline__ void wait_event(unsigned event, unsigned target, int task, int step) {
  Shared& shared = block_shared();
  const bool is_step = kRanks > 1 && event == kStepEvent;
  const unsigned* counter = is_step ? step_counter(shared.launch, shared.launch.rank)
                                    : shared.launch.events + static_cast<size_t>(event) * kEventStride;
  Patience patience;
  while (true) {
    // An acquire load per poll, rather than relaxed polls and one fence: the fence would wait for the memory system.
    const unsigned count = is_step ? load_acquire_sys(counter) : load_acquire_gpu(counter);
    if (static_cast<int>(count - target) >= 0 || has_aborted()) return;
    if (patience.ends()) {
      shared.arrivals = {count, target};
      return give_up(ErrorCode::kEventTimeout, task, step, event);
    }
  }
}

// Waits for a phase of a barrier of this block. Its roles only wait for each other, so running out of time here is a
// fault of the hardware or of the kernel itself: nothing sensible can follow, the watcher stops the launch.
__device__ __forceinline__ void ring_wait(unsigned long long* barrier, unsigned parity, ErrorCode::Value code, int task,
                                          int step) {
  Patience patience;
  while (!mbarrier_try_wait(barrier, parity)) {
    if (patience.ends(kRingPatience)) give_up(code, task, step, 0);
  }
}

// What `Context::load` loads, as two functions of the value's number.
template <typename Wanted, typename At>
struct Places {
  Wanted wanted;
  At at;
};

// Where a value is published, found before it is there.
template <typename T>
struct Place {
  T* current;
  bool polled;
};

struct Context {
  int thread;
  int step = 0;        // of this launch
  unsigned epoch = 0;  // of all launches since the counters were zeroed
  int task_number = 0;
  RingPosition<kRingStages> acquired = {};  // the next stage to take
  int released = 0;                         // the next to give back
  int half = 0;                             // of scratch, in use

  __device__ __forceinline__ int warp() const { return thread / 32; }
  __device__ __forceinline__ int lane() const { return thread % 32; }
  __device__ __forceinline__ void sync() const { barrier_sync(kConsumerBarrier, kConsumers); }

  // Shared memory for a body, or for one pass of it. Between two calls every consumer must pass a `sync`: the half that
  // a call returns was then left by all warps, although no barrier stands between tasks.
  template <typename Scratch>
  __device__ __forceinline__ Scratch& next_scratch() {
    static_assert(sizeof(Scratch) <= kScratchBytes, "scratch planned too small");
    half ^= 1;
    return *reinterpret_cast<Scratch*>(scratch_half(half));
  }

  __device__ __forceinline__ void stamp(ProfilePhase::Value phase) const {
    if constexpr (kProfile) {
      if (thread == 0) {
        const size_t record = static_cast<size_t>(step) * kNumTasks + task_number;
        block_shared().launch.profile[record * ProfilePhase::kCount + phase] = global_timer_ns();
      }
    }
  }

  // Returns when all events of `task` have arrived and their producers' writes are visible to the calling warp. Every
  // warp calls this once, before it touches an operand that is not polled and that a task of the same step may have
  // written. When the launch is being stopped it returns at once: what is read then may be anything, so a body must
  // not use activations as addresses.
  __device__ __forceinline__ void wait(const Task& task) {
    if (task.num_waits > 0) {
      if (lane() < task.num_waits) {
        const unsigned target = task.wait_count[lane()] * (epoch + 1);
        wait_event(task.wait_event[lane()], target, task_number, step);
      }
      __syncwarp();
      stamp(ProfilePhase::kReady);
    }
  }

  // Active rows of a step, this one or the one before; unknown before the first.
  static __device__ __forceinline__ int rows_of(int step) {
    return step < 0 ? kAllRows : block_shared().rows[step & 3];
  }

  // Active rows among the `capacity` from `first` on.
  __device__ __forceinline__ int rows_from(int first, int capacity) const {
    return max(0, min(rows_of(step) - first, capacity));
  }

  // Rows from `first` on that this step or the one before used: what must be made unwritten for the next step.
  __device__ __forceinline__ int touched_rows_from(int first, int capacity) const {
    return max(0, min(max(rows_of(step), rows_of(step - 1)) - first, capacity));
  }

  // Whether the words of operand `slot` say themselves when they are written.
  __device__ __forceinline__ bool is_polled(const Task& task, int slot) const { return task.polled >> slot & 1; }

  // The operand's copy of this step, if it is polled.
  template <typename T>
  __device__ __forceinline__ T* current(const Task& task, int slot) const {
    const size_t copy = is_polled(task, slot) && (epoch & 1) ? kPolledBytes : 0;
    return reinterpret_cast<T*>(task.operand[slot] + copy);
  }

  // The same place of a polled operand in the copy that the next step will fill.
  template <typename T>
  __device__ __forceinline__ T* other_copy(T* current) const {
    const long long distance = epoch & 1 ? -static_cast<long long>(kPolledBytes) : static_cast<long long>(kPolledBytes);
    return reinterpret_cast<T*>(reinterpret_cast<size_t>(current) + distance);
  }

  // Starts loading words or vectors: value i from `places.at(i)`, if `places.wanted(i)`, else zero.
  template <typename T, int kCount, typename Where>
  __device__ __forceinline__ void begin_load(T (&values)[kCount], const Where& places) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      values[i] = T{};
      load_polled(values[i], places.at(i), places.wanted(i));
    }
  }

  // Loads again what was not written yet, until all lanes of the warp have everything.
  template <typename T, int kCount, typename Where>
  __device__ __forceinline__ void end_load(const Task& task, int slot, T (&values)[kCount], const Where& places) const {
    if (!is_polled(task, slot)) return;
    Patience patience;
    while (true) {
      unsigned highest = 0;
#pragma unroll
      for (int i = 0; i < kCount; ++i) highest = max(highest, highest_word(values[i]));  // what is not wanted is zero
      if (highest != kUnwritten || has_aborted()) break;
      if (patience.ends()) give_up(ErrorCode::kDataTimeout, task_number, step, slot);
#pragma unroll
      for (int i = 0; i < kCount; ++i) load_polled(values[i], places.at(i), !is_written(values[i]));
    }
    __syncwarp();
  }

  template <typename T, int kCount, typename Where>
  __device__ __forceinline__ void load(const Task& task, int slot, T (&values)[kCount], const Where& places) const {
    begin_load(values, places);
    end_load(task, slot, values, places);
  }

  // `offset` (in units of T) of an operand.
  template <typename T>
  __device__ __forceinline__ Place<T> place(const Task& task, int slot, size_t offset) const {
    return {current<T>(task, slot) + offset, is_polled(task, slot)};
  }

  // Writes `offset` (in units of T) of an operand, and makes the same place of the other copy unwritten.
  // A place that this step does not use is only made unwritten: the step before may have used it.
  template <typename T>
  __device__ __forceinline__ void publish(const Task& task, int slot, size_t offset, const T& value,
                                          bool used = true) const {
    publish_at(task, slot, place<T>(task, slot, offset), 0, value, used);
  }

  // The same, `offset` behind a place of operand `slot`.
  template <typename T>
  __device__ __forceinline__ void publish_at(const Task& task, int slot, const Place<T>& place, size_t offset,
                                             const T& value, bool used) const {
    T* current = place.current + offset;
    if constexpr (kRanks > 1) {
      if (task.pushed >> slot & 1) return push(task, current, value, used);
    }
    if (used) store_relaxed_gpu(current, value);
    if (place.polled) {
      T blank;
      memory_set(blank);
      store_relaxed_gpu(other_copy(current), blank);
    }
  }

  // The next stages of the weight ring, once the loader has filled them.
  template <int kCount>
  __device__ __forceinline__ void acquire_stages(const char* (&stages)[kCount]) {
    acquire<kCount>(kCount, [&](int i, int stage) { stages[i] = ring_stage(stage); });
  }

  // The next stages, `count` of kMost at most, once the loader has filled them: the number of the first.
  template <int kMost>
  __device__ __forceinline__ int acquire_up_to(int count) {
    const int first = acquired.stage;
    acquire<kMost>(count, [](int, int) {});
    return first;
  }

  // Stage `number`, of less than two turns of the ring.
  static __device__ __forceinline__ const char* stage_at(int number) { return ring_stage(wrap(number)); }

  __device__ __forceinline__ const char* acquire_stage() {
    const char* stages[1];
    acquire_stages(stages);
    return stages[0];
  }

  // Gives the oldest stages back; every consumer warp does it once a stage. `used` must be made of a word of each
  // vector that was loaded from them: an arrival overtakes loads from shared memory that are under way, and the loader
  // then overwrites what they read, so the arrival's address is made to need what they bring.
  __device__ __forceinline__ void release_stages(unsigned used, int count = 1) {
    __syncwarp();
    unsigned long long* empty = block_shared().empty + (used & zero());
    if constexpr (kArrivingLanes == 1) {  // one for each stage
      if (lane() < count) mbarrier_arrive(&empty[wrap(released + lane())]);
    } else {
      for (int i = 0; i < count; ++i) mbarrier_arrive(&empty[wrap(released + i)]);
    }
    released = wrap(released + count);
  }

 private:
  // Takes the next `count` stages, kMost at most, once all are full; tells `visit` the number of each among them
  // and in the ring.
  template <int kMost, typename Visit>
  __device__ __forceinline__ void acquire(int count, Visit visit) {
    static_assert(kMost <= kRingStages, "the ring is too small");
    RingPosition<kRingStages> position;
    Patience patience;
    while (true) {
      position = acquired;
      bool full = true;
#pragma unroll
      for (int i = 0; i < kMost; ++i) {
        if (i >= count) break;
        visit(i, position.stage);
        full &= mbarrier_try_wait(&block_shared().full[position.stage], position.phase);
        position.advance();
      }
      if (full) break;
      if (patience.ends(kRingPatience)) give_up(ErrorCode::kLoadTimeout, task_number, step, 0);
    }
    acquired = position;
  }

  // Always: the grid is one row of blocks, which the compiler does not know. A uniform value, read from no memory.
  static __device__ __forceinline__ unsigned zero() { return gridDim.y - 1; }

  static __device__ __forceinline__ int wrap(int stage) { return stage < kRingStages ? stage : stage - kRingStages; }

  // Writes a polled operand into the memory of the ranks that the task names. All ranks run the same tasks, and their
  // arenas look the same: a place has the same offset in each. What this task writes elsewhere in this step, the same
  // tasks of all ranks write here; so it makes those places unwritten for the next step.
  template <typename T>
  __device__ __forceinline__ void push(const Task& task, T* current, const T& value, bool used) const {
    const Launch& launch = block_shared().launch;
    const int rank = launch.rank;
    if (used) {
      const size_t place = reinterpret_cast<size_t>(current) - launch.peer[rank];
      if (kMulticasts && (task.push_to & kMulticast)) {
        send_to_all(place, value);
      } else {
        send_to_each(task, place, value);
      }
    }
    if (!(task.push_to >> rank & 1)) return;
    T blank;
    memory_set(blank);
    const size_t first = reinterpret_cast<size_t>(other_copy(current)) - rank * task.rank_stride;
#pragma unroll
    for (int from = 0; from < kRanks; ++from) {
      store_relaxed_gpu(reinterpret_cast<T*>(first + from * task.rank_stride), blank);
    }
  }

  template <typename T>
  static __device__ __forceinline__ void send_to_each(const Task& task, size_t place, const T& value) {
    const Launch& launch = block_shared().launch;
#pragma unroll
    for (int i = 1; i <= kRanks; ++i) {  // each begins with another, so that they do not all write to one
      const int to = (launch.rank + i) % kRanks;
      if (task.push_to >> to & 1) store_relaxed_sys(reinterpret_cast<T*>(launch.peer[to] + place), value);
    }
  }

  // One store, which the switch between the GPUs gives to all of them, this one included.
  template <typename T>
  static __device__ __forceinline__ void send_to_all(size_t place, const T& value) {
    multicast_relaxed_sys(reinterpret_cast<T*>(block_shared().launch.multicast + place), value);
  }

  static __device__ __forceinline__ void memory_set(unsigned& word) { word = kUnwritten; }
  static __device__ __forceinline__ void memory_set(Vector16& vector) { vector = unwritten_vector(); }
};

template <typename T>
__device__ __forceinline__ T* operand(const Task& task, int slot) {
  return reinterpret_cast<T*>(task.operand[slot]);
}

}  // namespace mpk
