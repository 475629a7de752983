// The table row of each row's token; a task has a block of rows and columns.
#pragma once

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
    publish_lookup<Embedding, kColumns, kRows, kPacked, kYPanel>(context, task, rows, touched,
                                                                 [](int token) { return token; });
  }
};

}  // namespace mpk
