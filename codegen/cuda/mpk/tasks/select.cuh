// The chunks of an argmax put together; a warp takes a row.
#pragma once

#include "mpk/tasks/argmax.cuh"

namespace mpk {

template <int kChunks, int kRows>
struct Select {
  enum Operand { kValue, kColumn, kRowCount, kY };

  static __device__ void run(Context& context, const Task& task) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    if (!context.wait(task)) return;
    for (int row = context.warp(); row < rows; row += kConsumerWarps) {
      const float* values = operand<const float>(task, kValue) + row * task.row_stride[kValue];
      const int* columns = operand<const int>(task, kColumn) + row * task.row_stride[kColumn];
      float value = kNegativeInfinity;
      int column = 0;
      for (int c = context.lane(); c < kChunks; c += 32) keep_best(value, column, values[c], columns[c]);
      best_of_lanes(value, column);
      if (context.lane() == 0) operand<int>(task, kY)[row] = column;
    }
  }
};

}  // namespace mpk
