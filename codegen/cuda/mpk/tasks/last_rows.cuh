// The last row of each request that has rows in the step, one behind the other.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kBatch>
struct LastRows {
  enum Operand { kX, kRequests, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.wait(task);
    int row = context.rows_from(0, kBatch) - 1;  // from here on there may be none
    int found = 0;
    for (int b = 0; b < kBatch; ++b) {
      const int* request = operand<const int>(task, kRequests) + b * RequestColumn::kCount;
      const int count = request[RequestColumn::kNumRows];
      if (count > 0) copy(context, task, request[RequestColumn::kFirstRow] + count - 1, found++);
    }
    for (; row >= found; --row) copy(context, task, -1, row);
  }

 private:
  // Zeros for a row that is not there.
  static __device__ __forceinline__ void copy(const Context& context, const Task& task, int from, int to) {
    const bf16* x = operand<const bf16>(task, kX) + static_cast<size_t>(max(from, 0)) * task.row_stride[kX];
    bf16* y = operand<bf16>(task, kY) + static_cast<size_t>(to) * task.row_stride[kY];
    for (int c = 8 * context.thread; c < kColumns; c += 8 * kConsumers) {
      *reinterpret_cast<Vector16*>(y + c) = from < 0 ? Vector16{} : load_vector(x + c);
    }
  }
};

}  // namespace mpk
