// Rows, normed by their root mean square or as they are, in the order of wgmma's operands. A warp takes a row, or
// its part of one that some warps share: each of them sums the squares of all of it.
#pragma once

#include "mpk/blocks.cuh"
#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kColumns, int kRows, int kTotalRows, bool kNorm>
struct BlockRows {
  enum Operand { kX, kWeight, kRowCount, kY };

  static constexpr int kHalfBlocks = kColumns / kHalfColumns;
  static constexpr int kOctets = kHalfColumns / 8;
  static constexpr int kRowWarps = max_of(kConsumerWarps / kRows, 1);  // that share a row
  static_assert(kColumns % kHalfColumns == 0, "BlockRows: halves of blocks are whole");

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps) {
    context.thread = opaque(context.thread);
    const int first = task.index[0] * kRows, rows = context.rows_from(first, kRows);
    context.wait(task);
    for (int row = context.warp() / kRowWarps; row < rows; row += kConsumerWarps / kRowWarps) {
      const bf16* x = operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX];
      const float scale = kNorm ? rsqrtf(squares_of(context, x) / kColumns + eps) : 1.0f;
      const int first_half = context.warp() % kRowWarps * 32 + context.lane();
      for (int half = first_half; half < kHalfBlocks; half += 32 * kRowWarps) {
        Vector16 chunks[kOctets];
        load_chunks(task, x, half, scale, chunks);
        char* y = block_row(operand<char>(task, kY), kTotalRows, half / 2, row);
#pragma unroll
        for (int i = 0; i < kOctets; ++i) {
          *reinterpret_cast<Vector16*>(y + chunk_offset(first + row, half % 2, i)) = chunks[i];
        }
      }
    }
    fence_proxy_async_global();  // the copy engine will read it
  }

 private:
  static __device__ __forceinline__ float squares_of(const Context& context, const bf16* x) {
    float squares = 0.0f;
#pragma unroll 16  // loads that are under way together
    for (int c = 8 * context.lane(); c < kColumns; c += 8 * 32) {
      float values[8];
      unpack(load_vector(x + c), values);
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += values[i] * values[i];
    }
    return sum_over_lanes(squares);
  }

  static __device__ __forceinline__ void load_chunks(const Task& task, const bf16* x, int half, float scale,
                                                     Vector16 (&chunks)[kOctets]) {
#pragma unroll
    for (int octet = 0; octet < kOctets; ++octet) {
      const int column = half * kHalfColumns + octet * 8;
      Vector16 values = load_vector(x + column);
      if constexpr (kNorm) values = normed(values, operand<const bf16>(task, kWeight) + column, scale);
#pragma unroll
      for (int i = 0; i < kOctets; ++i) chunks[i].word[octet] = values.word[i];
    }
  }

  static __device__ __forceinline__ Vector16 normed(const Vector16& x, const bf16* weight, float scale) {
    float values[8], weights[8];
    unpack(x, values);
    unpack(load_vector(weight), weights);
    Vector16 result;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      result.word[i] =
          pack_bf16(values[2 * i] * scale * weights[2 * i], values[2 * i + 1] * scale * weights[2 * i + 1]);
    }
    return result;
  }
};

}  // namespace mpk
