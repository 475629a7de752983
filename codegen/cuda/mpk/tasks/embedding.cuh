// The table row of each row's token; the table may be packed as the weight of the output head (see linear.cuh).
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kRows, int kStride, bool kPacked>
struct Embedding {
  enum Operand { kTable, kIds, kRowCount, kY };

  static __device__ void run(Context& context, const Task& task) {
    if (!context.wait(task)) return;
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    for (int i = context.thread; i < rows * (kColumns / 8); i += kConsumers) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      const int token = operand<const int>(task, kIds)[row * kStride + RowColumn::kToken];
      const bf16* source = operand<const bf16>(task, kTable) + offset_of(token, column, task.row_stride[kTable]);
      *reinterpret_cast<Vector16*>(operand<bf16>(task, kY) + static_cast<size_t>(row) * task.row_stride[kY] + column) =
          load_vector(source);
    }
  }

 private:
  static __device__ __forceinline__ size_t offset_of(int token, int column, unsigned row_stride) {
    if constexpr (!kPacked) return static_cast<size_t>(token) * row_stride + column;
    const size_t tile = static_cast<size_t>(token / 16) * 16 * row_stride;
    return tile + column / 32 * 512 + token % 16 / 8 * 256 + token % 8 * 32 + column % 32;
  }
};

}  // namespace mpk
