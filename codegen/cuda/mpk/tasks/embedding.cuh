// The table row of each row's token.
#pragma once

#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"
#include "mpk/table.cuh"

namespace mpk {

template <int kColumns, int kRows, bool kPacked, int kYPanel>
struct Embedding {
  enum Operand { kTable, kIds, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    const int first = task.index[0] * kRows;
    const int rows = context.rows_from(first, kRows), touched = context.touched_rows_from(first, kRows);
    for (int i = context.thread; i < touched * (kColumns / 8); i += kConsumers) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      Vector16 values = {};
      if (row < rows) {
        const int token = operand<const int>(task, kIds)[row * task.row_stride[kIds] + RowColumn::kToken];
        values = load_columns<kPacked>(operand<const bf16>(task, kTable), token, column, task.row_stride[kTable]);
      }
      const size_t offset = element_offset<kYPanel>(row, column, task.row_stride[kY]);
      context.publish(task, kY, offset / 8, values, row < rows);
    }
  }
};

}  // namespace mpk
