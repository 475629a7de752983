// The largest of each row's logits, and the softmax of these. A warp takes a row; a lane holds every 32nd logit.
#pragma once

#include "mpk/best.cuh"
#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kNumExperts, int kTop, int kRows>
struct TopKGate {
  enum Operand { kLogits, kRowCount, kWeights, kExperts };

  static constexpr int kPerLane = ceil_div(kNumExperts, 32);
  static_assert(kTop <= 32, "TopKGate: a lane keeps one of the chosen");

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? min(*row_count, kRows) : kRows;
    context.wait(task);
    for (int row = context.warp(); row < rows; row += kConsumerWarps) choose(context, task, row);
  }

 private:
  static __device__ __forceinline__ void choose(const Context& context, const Task& task, int row) {
    const int lane = context.lane();
    const float* logits = operand<const float>(task, kLogits) + static_cast<size_t>(row) * task.row_stride[kLogits];
    float left[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      left[i] = lane + 32 * i < kNumExperts ? logits[lane + 32 * i] : kNegativeInfinity;
    float mine = 0.0f, largest = 0.0f, total = 0.0f;
    int expert = 0;
    for (int t = 0; t < kTop; ++t) {
      float value = kNegativeInfinity;
      int column = kNumExperts - 1;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) keep_best(value, column, left[i], lane + 32 * i);
      best_of_lanes(value, column);
      column = min(column, kNumExperts - 1);  // a lane beyond the last expert holds the least
      if (t == 0) largest = value;
      const float power = __expf(value - largest);
      total += power;
      if (lane == t) mine = power, expert = column;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i == column) left[i] = kNegativeInfinity;
      }
    }
    if (lane >= kTop) return;
    operand<float>(task, kWeights)[static_cast<size_t>(row) * task.row_stride[kWeights] + lane] = mine / total;
    operand<int>(task, kExperts)[static_cast<size_t>(row) * task.row_stride[kExperts] + lane] = expert;
  }
};

}  // namespace mpk
