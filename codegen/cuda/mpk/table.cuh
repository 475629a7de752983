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

}  // namespace mpk
