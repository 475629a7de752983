// cap * tanh(x / cap), element by element, float32.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk_softcap {

template <int kColumns, int kRows, int kTotal>
struct Softcap {
  enum Operand { kX, kRowCount, kY };

  static __device__ __forceinline__ void run(mpk::Context& context, const mpk::Task& task, float cap) {
    const int* row_count = mpk::operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    const int columns = min(kColumns, kTotal - task.index[0] * kColumns);
    context.wait(task);
    for (int i = context.thread; i < rows * columns; i += mpk::kConsumers) {
      const int row = i / columns, column = i % columns;
      const float x = mpk::operand<const float>(task, kX)[static_cast<size_t>(row) * task.row_stride[kX] + column];
      mpk::operand<float>(task, kY)[static_cast<size_t>(row) * task.row_stride[kY] + column] = cap * tanhf(x / cap);
    }
  }
};

}  // namespace mpk_softcap
