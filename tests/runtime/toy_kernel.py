"""The toy program's kernel: the ABI and the event protocol, nothing else."""

SOURCE = r"""
#include "mpk/abi.cuh"

using namespace mpk;

__device__ unsigned load_acquire(const unsigned* counter) {
  unsigned value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}

__device__ unsigned long long now_ns() {
  unsigned long long time;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(time));
  return time;
}

__device__ bool await(const Launch& launch, int task, int step, unsigned event, unsigned target) {
  const unsigned* counter = launch.events + event * kEventStride;
  const unsigned long long begin = now_ns();
  for (unsigned count; (count = load_acquire(counter)) < target;) {
    if (*static_cast<volatile int*>(&launch.error->code) != ErrorCode::kNone) return false;
    if (now_ns() - begin < launch.spin_limit_ns) continue;
    if (atomicCAS(&launch.error->code, ErrorCode::kNone, ErrorCode::kEventTimeout) == ErrorCode::kNone) {
      launch.error->sm = blockIdx.x;
      launch.error->task = task;
      launch.error->step = step;
      launch.error->event = event;
      launch.error->count = count;
      launch.error->target = target;
      __threadfence_system();
#ifdef CRASH
      __trap();
#endif
    }
    return false;
  }
  return true;
}

__device__ void axpy(const Task& task, float factor) {
  const float* a = reinterpret_cast<const float*>(task.operand[0]);
  const float* b = reinterpret_cast<const float*>(task.operand[1]);
  float* y = reinterpret_cast<float*>(task.operand[2]);
  for (unsigned column = threadIdx.x; column < task.row_stride[2]; column += blockDim.x)
    y[column] = factor * a[column] + (b ? b[column] : 0.0f);
}

extern "C" __global__ void toy(const __grid_constant__ Launch launch) {
  __shared__ bool go;
  for (int step = launch.first_step; step < launch.first_step + launch.num_steps; ++step) {
    for (int i = launch.queue_begin[blockIdx.x]; i < launch.queue_begin[blockIdx.x + 1]; ++i) {
      const Task& task = launch.tasks[i];
      if (threadIdx.x == 0) {
        go = i > launch.queue_begin[blockIdx.x] || await(launch, -1, step, STEP_EVENT, step * STEP_ARRIVALS);
        for (int w = 0; go && w < task.num_waits; ++w)
          go = await(launch, i, step, task.wait_event[w], (step + 1) * task.wait_count[w]);
      }
      __syncthreads();
      if (!go) return;
      axpy(task, task.body == 0 ? 2.0f : 1.0f);
      __threadfence();
      __syncthreads();
      if (threadIdx.x == 0)
        for (int s = 0; s < task.num_signals; ++s) atomicAdd(&launch.events[task.signal_event[s] * kEventStride], 1u);
    }
  }
}
"""
DEFINES = ("STEP_EVENT=2", "STEP_ARRIVALS=3")
"""Of `toy_program(3)`: the last task of each of its three SMs signals the end of a step."""
