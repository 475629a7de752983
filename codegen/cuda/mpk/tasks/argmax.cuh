// The largest logit of each row in one chunk of columns; among equals the first wins. A warp takes a row.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

// Keeps the larger value, at equal values the smaller column.
__device__ __forceinline__ void keep_best(float& value, int& column, float other_value, int other_column) {
  if (other_value > value || (other_value == value && other_column < column)) {
    value = other_value;
    column = other_column;
  }
}

__device__ __forceinline__ void best_of_lanes(float& value, int& column) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    keep_best(value, column, __shfl_xor_sync(0xFFFFFFFFu, value, offset), __shfl_xor_sync(0xFFFFFFFFu, column, offset));
  }
}

template <int kColumns, int kChunk, int kRows>
struct Argmax {
  enum Operand { kX, kRowCount, kValue, kColumn };

  struct Scratch {
    float value[kConsumerWarps];
    int column[kConsumerWarps];
  };
  static_assert(sizeof(Scratch) <= kScratchBytes, "Argmax: scratch planned too small");

  static __device__ void run(Context& context, const Task& task) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(context.scratch);
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    const int first = task.index[0] * kChunk, length = min(kChunk, kColumns - first);
    if (!context.wait(task)) return;
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
