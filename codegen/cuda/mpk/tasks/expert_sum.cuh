// Sum over a row's experts of weight times result, in their order, for some columns.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kSlots, int kColumns, int kRows, int kTotal>
struct ExpertSum {
  enum Operand { kX, kWeights, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? min(*row_count, kRows) : kRows;
    const int first = task.index[0] * kColumns, columns = min(kColumns, kTotal - first);
    context.wait(task);
    for (int i = context.thread; i < rows * columns; i += kConsumers) {
      const int row = i / columns, column = i % columns;
      const bf16* x = operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + first + column;
      const float* weights =
          operand<const float>(task, kWeights) + static_cast<size_t>(row) * task.row_stride[kWeights];
      float sum = 0.0f;
#pragma unroll
      for (int slot = 0; slot < kSlots; ++slot) sum += weights[slot] * to_float(x[slot * kTotal]);
      operand<bf16>(task, kY)[static_cast<size_t>(row) * task.row_stride[kY] + column] = from_float<bf16>(sum);
    }
  }
};

}  // namespace mpk
