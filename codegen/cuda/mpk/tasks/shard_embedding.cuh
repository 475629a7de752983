// The table row of each row's token where this rank holds it, else zeros: the sum over ranks is the embedding. A task
// has a block of rows and columns.
#pragma once

#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"
#include "mpk/table.cuh"

namespace mpk {

template <int kColumns, int kRows, bool kPacked, int kTokens>
struct ShardEmbedding {
  enum Operand { kTable, kIds, kFirst, kRowCount, kY };

  static_assert(kColumns % 8 == 0, "ShardEmbedding: columns are taken by 16 bytes");
  static constexpr int kVectors = kColumns / 8;  // of a row
  static constexpr int kAtOnce = min_of(ceil_div(kRows * kVectors, kConsumers), kLookUps);

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    const int first = task.index[0] * kRows, first_token = *operand<const int>(task, kFirst);
    const int rows = context.rows_from(first, kRows), touched = context.touched_rows_from(first, kRows);
    const auto token_of = [&](int row) {
      if (row >= rows) return kNoToken;
      const int token = operand<const int>(task, kIds)[row * task.row_stride[kIds] + RowColumn::kToken] - first_token;
      return token >= 0 && token < kTokens ? token : kNoToken;
    };
    for (int begin = context.thread; begin < touched * kVectors; begin += kAtOnce * kConsumers) {
      Vector16 values[kAtOnce];
      look_up<kPacked, kVectors>(values, operand<const bf16>(task, kTable), task.row_stride[kTable],
                                 task.index[1] * kColumns, begin, kConsumers, token_of);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int row = (begin + i * kConsumers) / kVectors, column = (begin + i * kConsumers) % kVectors * 8;
        if (row >= touched) break;
        context.publish(task, kY, element_offset<1>(row, column, task.row_stride[kY]) / 8, values[i], row < rows);
      }
    }
  }
};

}  // namespace mpk
