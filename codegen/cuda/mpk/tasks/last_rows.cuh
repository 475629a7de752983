// The last row of each request that has rows in the step, one behind the other; of x in blocks if they have rows.
#pragma once

#include "mpk/blocks.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kBatch, int kBlockRows>
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
    bf16* y = operand<bf16>(task, kY) + static_cast<size_t>(to) * task.row_stride[kY];
    for (int c = 8 * context.thread; c < kColumns; c += 8 * kConsumers) {
      *reinterpret_cast<Vector16*>(y + c) = from < 0 ? Vector16{} : octet(task, from, c);
    }
  }

  // Eight columns of x.
  static __device__ __forceinline__ Vector16 octet(const Task& task, int row, int column) {
    if constexpr (kBlockRows == 0) {
      return load_vector(operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + column);
    } else {  // a word of each chunk of its half
      const char* x = block_row(operand<char>(task, kX), kBlockRows, column / kColumnsOfBlock, row);
      Vector16 found;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int chunk = chunk_offset(row, column / kHalfColumns % 2, i);
        found.word[i] = reinterpret_cast<const unsigned*>(x + chunk)[column / 8 % 4];
      }
      return found;
    }
  }
};

}  // namespace mpk
