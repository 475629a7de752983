// Columns copied to where other ranks look for them, two elements of 2 bytes or one of 4 at a time.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kRows, int kTotal, int kElementBytes>
struct Push {
  enum Operand { kX, kRowCount, kY };

  static constexpr int kPerWord = 4 / kElementBytes;

  static __device__ void run(Context& context, const Task& task) {
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    const int first = task.index[0] * kColumns / kPerWord;
    const int words = ceil_div(min_of(kColumns, kTotal - task.index[0] * kColumns), kPerWord);
    context.wait(task);
    for (int i = context.thread; i < touched * words; i += kConsumers) {
      const int row = i / words, word = i % words;
      const size_t source = static_cast<size_t>(row) * task.row_stride[kX] / kPerWord + first + word;
      const unsigned value = row < rows ? operand<const unsigned>(task, kX)[source] : 0u;
      const size_t place = static_cast<size_t>(row) * task.row_stride[kY] / kPerWord + word;
      context.publish(task, kY, place, value, row < rows);
    }
  }
};

}  // namespace mpk
