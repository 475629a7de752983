// Root-mean-square norm of groups of columns; a warp takes one group of one row.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kWidth, int kGroups, int kRows>
struct RmsNorm {
  enum Operand { kX, kWeight, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    context.wait(task);
    const bf16* weight = operand<const bf16>(task, kWeight);
    for (int i = context.warp(); i < rows * kGroups; i += kConsumerWarps) {
      const int row = i / kGroups, first = i % kGroups * kWidth;
      const bf16* x = operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + first;
      bf16* y = operand<bf16>(task, kY) + static_cast<size_t>(row) * task.row_stride[kY] + first;
      float squares = 0.0f;
      for (int c = context.lane(); c < kWidth; c += 32) squares += to_float(x[c]) * to_float(x[c]);
      const float scale = rsqrtf(sum_over_lanes(squares) / kWidth + eps);
      for (int c = context.lane(); c < kWidth; c += 32) {
        y[c] = from_float<bf16>(to_float(x[c]) * scale * to_float(weight[c]));
      }
    }
  }
};

}  // namespace mpk
