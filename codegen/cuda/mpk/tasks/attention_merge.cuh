// The splits of one KV head's attention put together; the maxima are in powers of two, as attention.cuh leaves them.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kGroup, int kHeadDim, int kSplits, int kRows>
struct AttentionMerge {
  enum Operand { kPartial, kMaxSum, kRowCount, kOut };

  static __device__ void run(Context& context, const Task& task) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    if (!context.wait(task)) return;
    for (int i = context.thread; i < rows * kGroup * kHeadDim; i += kConsumers) {
      const int row = i / (kGroup * kHeadDim), element = i % (kGroup * kHeadDim), head = element / kHeadDim;
      const float* partial =
          operand<const float>(task, kPartial) + static_cast<size_t>(row) * task.row_stride[kPartial];
      const float* max_sum = operand<const float>(task, kMaxSum) + static_cast<size_t>(row) * task.row_stride[kMaxSum];
      float values[kSplits], maxima[kSplits], highest = kNegativeInfinity;
#pragma unroll
      for (int s = 0; s < kSplits; ++s) {
        values[s] = partial[s * kGroup * kHeadDim + element];
        maxima[s] = max_sum[2 * (s * kGroup + head)];
        highest = fmaxf(highest, maxima[s]);
      }
      float total = 0.0f, sum = 0.0f;
#pragma unroll
      for (int s = 0; s < kSplits; ++s) {
        const float weight = exp2f(maxima[s] - highest);
        total += weight * max_sum[2 * (s * kGroup + head) + 1];
        sum += weight * values[s];
      }
      operand<bf16>(task, kOut)[static_cast<size_t>(row) * task.row_stride[kOut] + element] =
          from_float<bf16>(sum / total);
    }
  }
};

}  // namespace mpk
