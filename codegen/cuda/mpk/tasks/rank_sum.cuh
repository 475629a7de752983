// What all ranks wrote, added in the order of ranks: each rank gets the same bits. A thread takes 8 columns of a row.
#pragma once

#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kSummed, int kColumns, int kRows, int kTotal, bool kResidual, int kYPanel>
struct RankSum {
  enum Operand { kSlots, kResidualRows, kRowCount, kY };

  static_assert(kTotal % 8 == 0 && kColumns % 8 == 0, "rows are summed by 16 bytes");

  static constexpr int kPasses = ceil_div(kRows * kColumns / 8, kConsumers);

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    const int vectors = min_of(kColumns, kTotal - task.index[0] * kColumns) / 8;
    Vector16 sums[kPasses];
    context.wait(task);
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int i = pass * kConsumers + context.thread;
      sums[pass] = summed(context, task, i / vectors, i % vectors, i / vectors < rows);
    }
    context.stamp(ProfilePhase::kReady);
    context.sync();  // the block has done its reading: what is published from here on tells so
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int i = pass * kConsumers + context.thread, row = i / vectors;
      if (row >= touched) continue;
      context.publish(task, kY, offset_of<kYPanel>(task, kY, row, i % vectors), sums[pass], row < rows);
    }
  }

 private:
  template <int kPanel>
  static __device__ __forceinline__ size_t offset_of(const Task& task, int slot, int row, int vector) {
    return element_offset<kPanel>(row, 8 * vector, task.row_stride[slot]) / 8;
  }

  static __device__ __forceinline__ Vector16 summed(const Context& context, const Task& task, int row, int vector,
                                                    bool active) {
    Vector16 slots[kSummed], residual[1];
    auto wanted = [&](int) { return active; };
    const Places slot_at{wanted, [&](int rank) {
                           const size_t offset = offset_of<1>(task, kSlots, rank * kRows + row, vector);
                           return context.current<const Vector16>(task, kSlots) + offset;
                         }};
    const Places residual_at{wanted, [&](int) {
                               const size_t offset = offset_of<kYPanel>(task, kResidualRows, row, vector);
                               return context.current<const Vector16>(task, kResidualRows) + offset;
                             }};
    context.begin_load(slots, slot_at);
    if constexpr (kResidual) context.begin_load(residual, residual_at);
    context.end_load(task, kSlots, slots, slot_at);
    if constexpr (kResidual) context.end_load(task, kResidualRows, residual, residual_at);
    float total[8], more[8];
    unpack(slots[0], total);
#pragma unroll
    for (int rank = 1; rank < kSummed + kResidual; ++rank) {
      unpack(rank < kSummed ? slots[min_of(rank, kSummed - 1)] : residual[0], more);
#pragma unroll
      for (int k = 0; k < 8; ++k) total[k] += more[k];
    }
    Vector16 sum;
#pragma unroll
    for (int k = 0; k < 4; ++k) sum.word[k] = pack_bf16(total[2 * k], total[2 * k + 1]);
    return sum;
  }
};

}  // namespace mpk
