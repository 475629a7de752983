// Sum, mean, maximum or minimum along one axis; a warp makes one element of the result.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

namespace reduction {

struct Sum {
  template <typename T>
  static __device__ T join(T a, T b) {
    return a + b;
  }
  template <typename T>
  static __device__ T finish(T a, int) {
    return a;
  }
};
struct Mean : Sum {
  static __device__ float finish(float a, int length) { return a / length; }
};
struct Max {
  template <typename T>
  static __device__ T join(T a, T b) {
    return fn::Maximum::of(a, b);
  }
  template <typename T>
  static __device__ T finish(T a, int) {
    return a;
  }
};
struct Min {
  template <typename T>
  static __device__ T join(T a, T b) {
    return fn::Minimum::of(a, b);
  }
  template <typename T>
  static __device__ T finish(T a, int) {
    return a;
  }
};

}  // namespace reduction

// `Function` of the values of all lanes of which the first `active` have one; the result is in lane 0.
template <typename Function, typename T>
__device__ __forceinline__ T join_lanes(T value, int lane, int active) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const T other = __shfl_down_sync(0xFFFFFFFFu, value, offset);
    if (lane + offset < active) value = Function::join(value, other);
  }
  return value;
}

template <typename Function, typename TaskBlock, typename Result, typename Y, typename X, typename ReducedAxis>
struct Reduce {
  enum Operand { kX, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const TaskBlock block(task);
    const long long step = ReducedAxis::step(task.row_stride[kX]);
    const int lane = context.lane(), active = min(32, ReducedAxis::kLength);
    context.wait(task);
    for (int i = context.warp(); i < block.rows * block.columns; i += kConsumerWarps) {
      const auto at = block.template element<Result>(i / block.columns, i % block.columns);
      const auto* x = locate<X>(task, kX, at);
      auto value = to_value(x[min(lane, active - 1) * step]);
      for (int j = lane + 32; j < ReducedAxis::kLength; j += 32) value = Function::join(value, to_value(x[j * step]));
      value = join_lanes<Function>(value, lane, active);
      if (lane == 0) store(locate<Y>(task, kY, at), Function::finish(value, ReducedAxis::kLength));
    }
  }
};

}  // namespace mpk
