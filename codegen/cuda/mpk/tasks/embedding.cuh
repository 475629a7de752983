// The table row of each row's token; the table may be packed as the weight of the output head (see linear.cuh).
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kRows, int kStride, bool kPacked>
struct Embedding {
  enum Operand { kTable, kIds, kRowCount, kY };

  static __device__ void run(Context& context, const Task& task) {
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    for (int i = context.thread; i < touched * (kColumns / 8); i += kConsumers) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      Vector16 values = {};
      if (row < rows) {
        const int token = operand<const int>(task, kIds)[row * kStride + RowColumn::kToken];
        values = load_columns(operand<const bf16>(task, kTable), token, column, task.row_stride[kTable]);
      }
      const size_t offset = static_cast<size_t>(row) * task.row_stride[kY] + column;
      context.publish(task, kY, offset / 8, values, row < rows);
    }
  }

 private:
  // Columns `column` .. `column + 7` of a row.
  static __device__ __forceinline__ Vector16 load_columns(const bf16* table, int row, int column, unsigned row_stride) {
    if constexpr (!kPacked) return load_vector(table + static_cast<size_t>(row) * row_stride + column);
    const bf16* block = table + static_cast<size_t>(row / 16) * 16 * row_stride + column / 32 * 512;
    const unsigned* words = reinterpret_cast<const unsigned*>(block) + row % 8 * 16 + column % 32 / 8 * 4 + row / 8 % 2;
    return {words[0], words[2], words[128], words[130]};
  }
};

}  // namespace mpk
