// Activations in blocks of 64 columns, as wgmma takes them from shared memory (core/memory.py: K_BLOCKS_64).
//
// Columns are in the order of a packed weight's. In it the words that a lane has of a tensor-core result, columns 2q
// and 2q + 1 of four neighbouring octets, are one chunk.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

constexpr int kColumnsOfBlock = 64;
constexpr int kRowBytesOfBlock = 2 * kColumnsOfBlock;
constexpr int kRowsOfStage = 128;  // of a block, that one copy brings
constexpr int kHalfColumns = 32;   // of a block, that are four chunks

// Byte, in a block's row number `row`, of chunk `chunk` of half `half`.
__device__ __forceinline__ int chunk_offset(int row, int half, int chunk) {
  return ((half * 4 + chunk) ^ (row & 7)) * 16;
}

// Where row `row` of block `block` begins; `first` is that of row and block 0, of `rows` that a block has.
__device__ __forceinline__ char* block_row(char* first, int rows, int block, int row) {
  return first + (static_cast<size_t>(block) * rows + row) * kRowBytesOfBlock;
}

}  // namespace mpk
