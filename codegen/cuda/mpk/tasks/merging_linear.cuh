// A linear whose x is the merge of attention's splits: of a product's eight columns, as many as there are splits in the
// step hold one row of x, each lane's part scaled by its split's weight. The columns of a row are added at the end.
#pragma once

#include "mpk/tasks/linear.cuh"

namespace mpk {

template <int kSplits, int kGroup, int kHeadDim>
struct Splits {
  static constexpr bool kMerges = true;
  static constexpr int kGroupColumns = kGroup * kHeadDim;  // of a KV head's query heads
  static_assert(kHeadDim % 8 == 0, "Splits: a lane's eight columns must be of one head");

  // Vector i of a segment of x, and the logarithm of its weight.
  template <int kDistance>
  struct Place {
    int column, columns, split;  // the lane's first column, the columns of x
    bool used;

    __device__ __forceinline__ bool wanted(int i) const { return used && column + i * kDistance < columns; }
    // Blocks of a KV head's query heads before this lane's, in what attention wrote.
    __device__ __forceinline__ int blocks(int i) const {
      return (column + i * kDistance) / kGroupColumns * (kSplits - 1) + split;
    }
  };

  template <int kDistance>
  struct OutputPlaces : Place<kDistance> {
    const bf16* row;
    __device__ __forceinline__ const Vector16* at(int i) const {
      const int column = this->column + i * kDistance;
      return reinterpret_cast<const Vector16*>(row + column + this->blocks(i) * kGroupColumns);
    }
  };

  template <int kDistance>
  struct LogPlaces : Place<kDistance> {
    const unsigned* row;
    __device__ __forceinline__ const unsigned* at(int i) const {
      return row + (this->column + i * kDistance) / kHeadDim + this->blocks(i) * kGroup;
    }
  };

  // A lane's columns of x, from `column` on, as B operands: column n of the product is split n % splits of row
  // n / splits.
  template <int kX, int kLogSum, int kDistance, int kCount>
  static __device__ __forceinline__ void load(const Context& context, const Task& task, int rows, int column,
                                              int columns, Vector16 (&x)[kCount]) {
    const int splits = active_splits(kSplits, rows), mine = context.lane() / 4, row = mine / splits;
    const Place<kDistance> place{column, columns, mine % splits, row < rows};
    const OutputPlaces<kDistance> outputs{
        place, context.current<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX]};
    const LogPlaces<kDistance> sums{
        place, context.current<const unsigned>(task, kLogSum) + static_cast<size_t>(row) * task.row_stride[kLogSum]};
    unsigned logs[kCount];
    context.begin_load(x, outputs);
    context.begin_load(logs, sums);
    context.end_load(task, kX, x, outputs);
    context.end_load(task, kLogSum, logs, sums);
    float shares[kCount];
    find_shares(logs, splits, shares);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
#pragma unroll
      for (unsigned& word : x[i].word) word = pack_bf16(low_half(word) * shares[i], high_half(word) * shares[i]);
    }
  }

  // Stores, or adds, what the columns of each row sum up to; `sums` are of rows lane / 4 and lane / 4 + 8 of a tile.
  template <int kRows, int kStride>
  static __device__ __forceinline__ void store(const Context& context, int rows, int tile_column,
                                               const float (&sums)[4], float (&partial)[kRows][kStride], bool adds) {
    const int splits = active_splits(kSplits, rows), first = context.lane() % 4 * 2;
    const int column = tile_column + context.lane() / 4;
    auto put = [&](int row, float low, float high) {
      if (row >= rows) return;
      float* target = &partial[row][column];
      target[0] = adds ? target[0] + low : low;
      target[8] = adds ? target[8] + high : high;
    };
    if (splits == 1) {
      put(first, sums[0], sums[2]);
      put(first + 1, sums[1], sums[3]);
      return;
    }
    float low = sums[0] + sums[1], high = sums[2] + sums[3];
    for (int distance = 1; 2 * distance < splits; distance *= 2) {
      low += __shfl_xor_sync(0xFFFFFFFFu, low, distance);
      high += __shfl_xor_sync(0xFFFFFFFFu, high, distance);
    }
    if (first % splits == 0) put(first / splits, low, high);
  }

 private:
  // What share of its row each split has; the splits of a row are in lanes that differ in bits 2 and up.
  template <int kCount>
  static __device__ __forceinline__ void find_shares(const unsigned (&logs)[kCount], int splits,
                                                     float (&shares)[kCount]) {
    float highest[kCount], total[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) highest[i] = __uint_as_float(logs[i]);
    for (int distance = 4; distance < 4 * splits; distance *= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        highest[i] = fmaxf(highest[i], __shfl_xor_sync(0xFFFFFFFFu, highest[i], distance));
      }
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) total[i] = shares[i] = exp2f(__uint_as_float(logs[i]) - highest[i]);
    for (int distance = 4; distance < 4 * splits; distance *= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) total[i] += __shfl_xor_sync(0xFFFFFFFFu, total[i], distance);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) shares[i] /= total[i];
  }
};

}  // namespace mpk
