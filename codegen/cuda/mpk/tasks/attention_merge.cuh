// The splits of one query head's attention put together; the maxima are in powers of two, as attention.cuh leaves them.
// A thread adds some splits of two neighbouring elements; the parts meet in shared memory and are added in their order.
#pragma once

#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kGroup, int kHeadDim, int kSplits, int kRows, int kOutPanel>
struct AttentionMerge {
  enum Operand { kPartial, kMaxSum, kRowCount, kOut };

  static constexpr int kPairs = kHeadDim / 2;
  static constexpr int kParts = kConsumers / round_up(kPairs, 32);
  static constexpr int kPartSplits = ceil_div(kSplits, kParts);

  struct Scratch {
    float2 sum[kParts][kPairs];
    float highest[kParts], total[kParts];
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int first = task.index[1] * kRows, rows = context.rows_from(first, kRows);
    context.wait(task);
    const int pair = context.thread % round_up(kPairs, 32);
    for (int row = 0; row < context.touched_rows_from(first, kRows); ++row) {
      unsigned merged = 0;
      if (row < rows) merged = merge(context, task, row, pair, context.thread / round_up(kPairs, 32));
      const size_t offset = element_offset<kOutPanel>(row, 2 * pair, task.row_stride[kOut]);
      if (context.thread < kPairs) context.publish(task, kOut, offset / 2, merged, row < rows);
    }
  }

 private:
  struct PartPlaces {
    const unsigned* first;
    int stride, left;  // words from split to split; splits of this thread

    __device__ __forceinline__ bool wanted(int i) const { return i / 2 < left; }
    __device__ __forceinline__ const unsigned* at(int i) const { return first + i / 2 * stride + i % 2; }
  };

  static __device__ unsigned merge(Context& context, const Task& task, int row, int pair, int part) {
    Scratch& scratch = context.next_scratch<Scratch>();
    const int head = task.index[0] % kGroup, first = part * kPartSplits;
    const int mine = min(kPartSplits, kSplits - first);
    const PartPlaces value_at{context.current<const unsigned>(task, kPartial) +
                                  static_cast<size_t>(row) * task.row_stride[kPartial] +
                                  (first * kGroup + head) * kHeadDim + 2 * pair,
                              kGroup * kHeadDim, pair < kPairs ? mine : 0};
    const PartPlaces state_at{context.current<const unsigned>(task, kMaxSum) +
                                  static_cast<size_t>(row) * task.row_stride[kMaxSum] + 2 * (first * kGroup + head),
                              2 * kGroup, mine};
    unsigned values[2 * kPartSplits], states[2 * kPartSplits];  // two elements; maximum and sum
    context.begin_load(values, value_at);
    context.begin_load(states, state_at);
    context.end_load(task, kPartial, values, value_at);
    context.end_load(task, kMaxSum, states, state_at);
    context.stamp(ProfilePhase::kReady);
    add_splits(scratch, values, states, mine, pair, part);
    context.sync();
    return context.thread < kPairs ? add_parts(scratch, pair) : 0;
  }

  static __device__ __forceinline__ void add_splits(Scratch& scratch, const unsigned (&values)[2 * kPartSplits],
                                                    const unsigned (&states)[2 * kPartSplits], int mine, int pair,
                                                    int part) {
    float highest = kNegativeInfinity, total = 0.0f;
    float2 sum = {};
#pragma unroll
    for (int s = 0; s < kPartSplits; ++s) {
      if (s < mine) highest = fmaxf(highest, __uint_as_float(states[2 * s]));
    }
#pragma unroll
    for (int s = 0; s < kPartSplits; ++s) {
      if (s >= mine) break;
      const float weight = exp2f(__uint_as_float(states[2 * s]) - highest);
      total += weight * __uint_as_float(states[2 * s + 1]);
      sum = {sum.x + weight * __uint_as_float(values[2 * s]), sum.y + weight * __uint_as_float(values[2 * s + 1])};
    }
    if (pair < kPairs) scratch.sum[part][pair] = sum;
    if (pair == 0) {
      scratch.highest[part] = highest;
      scratch.total[part] = total;
    }
  }

  static __device__ __forceinline__ unsigned add_parts(const Scratch& scratch, int pair) {
    float highest = kNegativeInfinity, total = 0.0f;
    float2 sum = {};
#pragma unroll
    for (int p = 0; p < kParts; ++p) highest = fmaxf(highest, scratch.highest[p]);
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const float weight = exp2f(scratch.highest[p] - highest);
      total += weight * scratch.total[p];
      sum = {sum.x + weight * scratch.sum[p][pair].x, sum.y + weight * scratch.sum[p][pair].y};
    }
    return pack_bf16(sum.x / total, sum.y / total);
  }
};

}  // namespace mpk
