// Operands that carry their own readiness: until a 4-byte word of a polled buffer is written in a step it holds
// kUnwritten, so that the load that fetches the data is the wait. No counter, no fence, no second trip to memory.
//
// A polled buffer exists twice, kPolledBytes apart; steps take turns. Who writes a word in one copy also makes it
// kUnwritten in the other, which every reader has left since the step before ended and no writer enters before this
// step ends. No arithmetic yields kUnwritten: it is a NaN, and not the one that conversions and operations make.
#pragma once

#include "mpk/atoms.cuh"
#include "mpk/config.cuh"

namespace mpk {

// Of words that may be polled: other ranks write such words, too, if there are any.
template <typename T>
__device__ __forceinline__ void load_polled(T& value, const T* pointer, bool wanted) {
  if constexpr (kRanks > 1) {
    load_relaxed_sys(value, pointer, wanted);
  } else {
    load_relaxed_gpu(value, pointer, wanted);
  }
}

constexpr unsigned kUnwritten = 0xFFFFFFFFu;

// The highest word is kUnwritten exactly if one of them is: no chain of comparisons is as short.
__device__ __forceinline__ unsigned highest_word(unsigned word) { return word; }

__device__ __forceinline__ unsigned highest_word(const Vector16& vector) {
  return max(max(vector.word[0], vector.word[1]), max(vector.word[2], vector.word[3]));
}

template <typename T>
__device__ __forceinline__ bool is_written(const T& value) {
  return highest_word(value) != kUnwritten;
}

__device__ __forceinline__ Vector16 unwritten_vector() { return {kUnwritten, kUnwritten, kUnwritten, kUnwritten}; }

}  // namespace mpk
