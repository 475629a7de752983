// Rotary position embedding of some heads; a warp takes one head of one row.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeads, int kHeadDim, int kRows, bool kInterleaved>
struct Rope {
  enum Operand { kX, kRowState, kInvFreq, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task, float scaling) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    context.wait(task);
    for (int i = context.warp(); i < rows * kHeads; i += kConsumerWarps) {
      const int row = i / kHeads, first = i % kHeads * kHeadDim;
      const int position = operand<const int>(task, kRowState)[row * RowColumn::kCount + RowColumn::kPosition];
      HeadPairs<kHeadDim, kInterleaved> head;
      head.load(operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + first, context.lane());
      Rotation<kHeadDim> rotation;
      rotation.load(operand<const float>(task, kInvFreq), context.lane());
      rotation.turn_to(position, scaling);
      head.rotate(rotation);
      head.store(operand<bf16>(task, kY) + static_cast<size_t>(row) * task.row_stride[kY] + first, 1.0f,
                 context.lane());
    }
  }
};

}  // namespace mpk
