// Products of rows with the weights of the experts that they chose. The items, some columns of one expert each, are
// dealt to the grid's tasks in turn: all tasks see the same choice, so all count the same items, and none need be told.
//
// A warp takes a column at a time: its lanes hold the row of the weight, and multiply it by each row of x that chose
// the expert. Weights are read from device memory after the wait: which ones is not known before.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kNumExperts, int kN, int kK, int kSlots, int kRows, int kColumns, int kTakers, bool kGated, bool kPerSlot>
struct GroupedLinear {
  enum Operand { kX, kWeight, kExperts, kRowCount, kY };

  static constexpr int kPairs = kRows * kSlots;
  static constexpr int kGroups = ceil_div(kNumExperts, 32);
  static constexpr int kBlocks = ceil_div(kN, kColumns);  // items of an expert
  static constexpr int kVectors = ceil_div(kK, 8 * 32);   // of a weight's row, a lane
  static constexpr int kParts = kGated ? 2 : 1;           // rows of a weight for a column
  static constexpr size_t kExpertRows = kParts * kN;

  struct Scratch {
    int expert[kPairs];  // of each active row's slots
    int used[32 * kGroups];
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    Scratch& scratch = context.next_scratch<Scratch>();
    const int* row_count = operand<const int>(task, kRowCount);
    const int pairs = (row_count ? min(*row_count, kRows) : kRows) * kSlots;
#pragma unroll 1
    for (int i = context.thread; i < 32 * kGroups; i += kConsumers) scratch.used[i] = 0;
    context.wait(task);
    context.sync();
#pragma unroll 1
    for (int i = context.thread; i < pairs; i += kConsumers) {
      const int* experts =
          operand<const int>(task, kExperts) + static_cast<size_t>(i / kSlots) * task.row_stride[kExperts];
      const int expert =
          max(0, min(experts[i % kSlots], kNumExperts - 1));  // anything, when the launch is being stopped
      scratch.expert[i] = expert;
      scratch.used[expert] = 1;
    }
    context.sync();
    const int items = count_used(context, scratch) * kBlocks;
#pragma unroll 1
    for (int item = task.index[0]; item < items; item += kTakers) {
      run_item(context, task, scratch, pairs, nth_used(context, scratch, item / kBlocks), item % kBlocks * kColumns);
    }
  }

 private:
  static __device__ __forceinline__ unsigned used_mask(const Context& context, const Scratch& scratch, int group) {
    return __ballot_sync(0xFFFFFFFFu, scratch.used[32 * group + context.lane()] != 0);
  }

  static __device__ __forceinline__ int count_used(const Context& context, const Scratch& scratch) {
    int count = 0;
#pragma unroll 1
    for (int group = 0; group < kGroups; ++group) count += __popc(used_mask(context, scratch, group));
    return count;
  }

  // The expert that `n` used ones come before.
  static __device__ __forceinline__ int nth_used(const Context& context, const Scratch& scratch, int n) {
#pragma unroll 1
    for (int group = 0; group < kGroups; ++group) {
      unsigned mask = used_mask(context, scratch, group);
      const int count = __popc(mask);
      if (n < count) {
#pragma unroll 1
        for (; n > 0; --n) mask &= mask - 1;
        return 32 * group + __ffs(mask) - 1;
      }
      n -= count;
    }
    return 0;
  }

  static __device__ __forceinline__ void run_item(const Context& context, const Task& task, const Scratch& scratch,
                                                  int pairs, int expert, int first) {
    const bf16* weight = operand<const bf16>(task, kWeight) + expert * kExpertRows * task.row_stride[kWeight];
    const int end = min(first + kColumns, kN);
#pragma unroll 1
    for (int column = first + context.warp(); column < end; column += kConsumerWarps) {
      Vector16 rows[kParts][kVectors];
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
        load_row(context, weight + static_cast<size_t>(part * kN + column) * task.row_stride[kWeight], rows[part]);
      }
#pragma unroll 1
      for (int pair = 0; pair < pairs; ++pair) {
        if (scratch.expert[pair] == expert) multiply(context, task, rows, pair, column);
      }
    }
  }

  static __device__ __forceinline__ void load_row(const Context& context, const bf16* row,
                                                  Vector16 (&vectors)[kVectors]) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int k = 8 * (context.lane() + 32 * v);
      vectors[v] = k < kK ? load_vector(row + k) : Vector16{};
    }
  }

  // One element of y.
  static __device__ __forceinline__ void multiply(const Context& context, const Task& task,
                                                  const Vector16 (&rows)[kParts][kVectors], int pair, int column) {
    const int row = pair / kSlots, slot = pair % kSlots;
    const bf16* x =
        operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + (kPerSlot ? slot * kK : 0);
    float sums[kParts] = {};
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int k = 8 * (context.lane() + 32 * v);
      const Vector16 values = k < kK ? load_vector(x + k) : Vector16{};
#pragma unroll
      for (int part = 0; part < kParts; ++part) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const unsigned w = rows[part][v].word[j];
          sums[part] += low_half(values.word[j]) * low_half(w);
          sums[part] += high_half(values.word[j]) * high_half(w);
        }
      }
    }
#pragma unroll
    for (int part = 0; part < kParts; ++part) sums[part] = sum_over_lanes(sums[part]);
    if (context.lane() != 0) return;
    const float value = kGated ? silu(sums[0]) * sums[kParts - 1] : sums[0];
    operand<bf16>(task, kY)[static_cast<size_t>(row) * task.row_stride[kY] + slot * kN + column] =
        from_float<bf16>(value);
  }
};

}  // namespace mpk
