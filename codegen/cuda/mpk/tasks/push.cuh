// Columns copied to where other ranks look for them, two elements of 2 bytes or one of 4 at a time.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kRows, int kTotal, int kElementBytes>
struct Push {
  enum Operand { kX, kRowCount, kY };

  static constexpr int kPerWord = 4 / kElementBytes;
  static constexpr int kPasses = ceil_div(kRows * ceil_div(kColumns, kPerWord), kConsumers);

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    const int first = task.index[0] * kColumns / kPerWord;
    const int words = ceil_div(min_of(kColumns, kTotal - task.index[0] * kColumns), kPerWord);
    unsigned values[kPasses];
    context.wait(task);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int row = (pass * kConsumers + context.thread) / words, word = (pass * kConsumers + context.thread) % words;
      const size_t source = static_cast<size_t>(row) * task.row_stride[kX] / kPerWord + first + word;
      values[pass] = row < rows ? operand<const unsigned>(task, kX)[source] : 0u;
    }
    context.sync();  // the block has done its reading: what is published from here on tells so
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int row = (pass * kConsumers + context.thread) / words, word = (pass * kConsumers + context.thread) % words;
      const size_t place = static_cast<size_t>(row) * task.row_stride[kY] / kPerWord + word;
      if (row < touched) context.publish(task, kY, place, values[pass], row < rows);
    }
  }
};

}  // namespace mpk
