// Rows of an embedding table, which may be packed as the weight of the output head (see tasks/linear.cuh).
#pragma once

#include "mpk/types.cuh"

namespace mpk {

// Columns `column` .. `column + 7` of a row.
template <bool kPacked>
__device__ __forceinline__ Vector16 load_columns(const bf16* table, int row, int column, unsigned row_stride) {
  if constexpr (!kPacked) return load_vector(table + static_cast<size_t>(row) * row_stride + column);
  const bf16* block = table + static_cast<size_t>(row / 16) * 16 * row_stride + column / 32 * 512;
  const unsigned* words = reinterpret_cast<const unsigned*>(block) + row % 8 * 16 + column % 32 / 8 * 4 + row / 8 % 2;
  return {words[0], words[2], words[128], words[130]};
}

constexpr int kNoToken = -1;
constexpr int kLookUps = 8;  // vectors that a thread has under way, at most

// Of rows of kVectors vectors of 8 columns, which begin at column `first`: vectors `begin`, `begin + step` and so on of
// the rows that `token_of` names, zeros where that is kNoToken. A vector takes two trips to memory, one for the token
// and one for the columns; of all of them together the thread makes no more.
template <bool kPacked, int kVectors, int kCount, typename TokenOf>
__device__ __forceinline__ void look_up(Vector16 (&values)[kCount], const bf16* table, unsigned row_stride, int first,
                                        int begin, int step, TokenOf token_of) {
  int token[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) token[i] = token_of((begin + i * step) / kVectors);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int column = first + (begin + i * step) % kVectors * 8;
    values[i] = {};
    if (token[i] != kNoToken) values[i] = load_columns<kPacked>(table, token[i], column, row_stride);
  }
}

}  // namespace mpk
