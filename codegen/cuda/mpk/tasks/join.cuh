// Waits, then signals: the kernel does both around the body.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

struct Join {
  static __device__ __forceinline__ void run(Context& context, const Task& task) { context.wait(task); }
};

}  // namespace mpk
