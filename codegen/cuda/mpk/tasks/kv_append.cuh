// Keys or values of the step's rows stored in a paged cache; a warp takes a row.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeadDim, int kPageSize, int kRows>
struct KvAppend {
  enum Operand { kCache, kNew, kRowState, kPageTable };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    for (int row = context.warp(); row < kRows; row += kConsumerWarps) {
      const int* state = operand<const int>(task, kRowState) + row * RowColumn::kCount;
      const int request = state[RowColumn::kRequest], position = state[RowColumn::kPosition];
      if (request < 0) continue;
      const int page =
          operand<const int>(task, kPageTable)[request * task.row_stride[kPageTable] + position / kPageSize];
      bf16* target = operand<bf16>(task, kCache) + static_cast<size_t>(page) * task.row_stride[kCache] +
                     position % kPageSize * kHeadDim;
      const bf16* source = operand<const bf16>(task, kNew) + static_cast<size_t>(row) * task.row_stride[kNew];
      for (int c = context.lane(); c < kHeadDim; c += 32) target[c] = source[c];
    }
  }
};

}  // namespace mpk
