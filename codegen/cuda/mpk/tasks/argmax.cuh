// The largest logit of each row in one chunk of columns; among equals the first wins. A warp takes a row.
#pragma once

#include "mpk/best.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kChunk, int kRows>
struct Argmax {
  enum Operand { kX, kRowCount, kValue, kColumn };

  struct Scratch {
    float value[kConsumerWarps];
    int column[kConsumerWarps];
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    Scratch& scratch = context.next_scratch<Scratch>();
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    const int first = task.index[0] * kChunk, length = min(kChunk, kColumns - first);
    context.wait(task);
    for (int row = 0; row < rows; ++row) {
      const float* x = operand<const float>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX];
      float value = kNegativeInfinity;
      int column = 0;
      for (int c = context.thread; c < length; c += kConsumers) keep_best(value, column, x[c], c);
      best_of_lanes(value, column);
      if (context.lane() == 0) {
        scratch.value[context.warp()] = value;
        scratch.column[context.warp()] = column;
      }
      context.sync();
      if (context.thread == 0) {
        for (int w = 1; w < kConsumerWarps; ++w) keep_best(value, column, scratch.value[w], scratch.column[w]);
        operand<float>(task, kValue)[row * task.row_stride[kValue]] = value;
        operand<int>(task, kColumn)[row * task.row_stride[kColumn]] = first + column;
      }
      context.sync();
    }
  }
};

}  // namespace mpk
