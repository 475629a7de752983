// The table row of each row's token where this rank holds it, else zeros: the sum over ranks is the embedding.
#pragma once

#include "mpk/runtime/context.cuh"
#include "mpk/table.cuh"

namespace mpk {

template <int kColumns, int kRows, bool kPacked, int kTokens>
struct ShardEmbedding {
  enum Operand { kTable, kIds, kFirst, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    const int first = *operand<const int>(task, kFirst);
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    for (int i = context.thread; i < touched * (kColumns / 8); i += kConsumers) {
      const int row = i / (kColumns / 8), column = i % (kColumns / 8) * 8;
      Vector16 values = {};
      if (row < rows) {
        const int token = operand<const int>(task, kIds)[row * task.row_stride[kIds] + RowColumn::kToken] - first;
        const bool mine = token >= 0 && token < kTokens;
        const bf16* table = operand<const bf16>(task, kTable);
        if (mine) values = load_columns<kPacked>(table, token, column, task.row_stride[kTable]);
      }
      const size_t place = static_cast<size_t>(row) * task.row_stride[kY] + column;
      context.publish(task, kY, place / 8, values, row < rows);
    }
  }
};

}  // namespace mpk
