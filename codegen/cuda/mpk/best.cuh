// The largest of many values and where it stands; among equals the first wins.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

// Keeps the larger value, at equal values the smaller column.
__device__ __forceinline__ void keep_best(float& value, int& column, float other_value, int other_column) {
  if (other_value > value || (other_value == value && other_column < column)) {
    value = other_value;
    column = other_column;
  }
}

template <int kLanes = 32>
__device__ __forceinline__ void best_of_lanes(float& value, int& column) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    keep_best(value, column, __shfl_xor_sync(0xFFFFFFFFu, value, offset), __shfl_xor_sync(0xFFFFFFFFu, column, offset));
  }
}

}  // namespace mpk
