// Operands that the loader fetches although tasks of the step write them: activations of products of many rows.
//
// The loader is ahead of the consumers, so it must not read what orders a task only by its place in the queue. It
// fetches for the first task of a grid on this SM when the consumers have come to it: then all tasks before are over
// here, and the task's events have arrived. The grid's other tasks depend on no task between, so for them it waits for
// their own events alone, and runs ahead.
#pragma once

#include "mpk/runtime/loader.cuh"

namespace mpk {

// A task's number among all that this launch may run, from one on.
__device__ __forceinline__ unsigned ordinal_of(int step, int task_number) {
  return static_cast<unsigned>(step) * kNumTasks + task_number + 1;
}

// Consumers, once in a task, behind its wait. The task must be one before which all warps meet (TaskFlag::kOrdered), if
// a task of the step writes what it fetches.
__device__ __forceinline__ void let_fetch(const Context& context) {
  if (context.thread != 0) return;
  store_release_block(&block_shared().fetchable, ordinal_of(context.step, context.task_number));
}

__device__ __forceinline__ bool wait_for_consumers(const Loader& loader) {
  const unsigned mine = ordinal_of(loader.step, loader.task_number);
  const unsigned begin = ticks();
  while (static_cast<int>(load_acquire_block(&block_shared().fetchable) - mine) < 0) {
    if (loader.shared_stop()) return false;
    if (is_over(begin, kRingPatience)) give_up(ErrorCode::kRingTimeout, loader.task_number, loader.step, 0);
  }
  return true;
}

// The loader, before it fetches for `task`. False: the launch is being stopped. Behind it the step's row count is
// known.
__device__ __forceinline__ bool begin_fetch(Loader& loader, const Task& task) {
  if (loader.fetched_step != loader.step || loader.fetched_grid != task.grid) {
    if (!wait_for_consumers(loader)) return false;
    loader.fetched_step = loader.step;
    loader.fetched_grid = task.grid;
  } else {
    const unsigned epoch = block_shared().launch.first_step + loader.step;
    for (int i = 0; i < task.num_waits; ++i) {
      wait_event(task.wait_event[i], task.wait_count[i] * (epoch + 1), loader.task_number, loader.step);
    }
  }
  fence_proxy_async_global();  // other threads wrote what the copy engine reads
  return true;
}

}  // namespace mpk
