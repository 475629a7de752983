// The table row of each row's token where this rank holds it, else zeros: the sum over ranks is the embedding. A task
// has a block of rows and columns.
#pragma once

#include "mpk/table.cuh"

namespace mpk {

template <int kColumns, int kRows, bool kPacked, int kTokens>
struct ShardEmbedding {
  enum Operand { kTable, kIds, kFirst, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    const int first = task.index[0] * kRows, first_token = *operand<const int>(task, kFirst);
    const int rows = context.rows_from(first, kRows), touched = context.touched_rows_from(first, kRows);
    publish_lookup<ShardEmbedding, kColumns, kRows, kPacked, 1>(context, task, rows, touched, [&](int token) {
      const int local = token - first_token;
      return local >= 0 && local < kTokens ? local : kNoToken;
    });
  }
};

}  // namespace mpk
