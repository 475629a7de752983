// Functions that several task bodies share. Reductions have a fixed order: the same inputs give the same bits.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

// Two products of bf16 at once, each rounded once: what a product in fp32 rounds to.
__device__ __forceinline__ unsigned multiply_bf16x2(unsigned a, unsigned b) {
  unsigned product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

template <int kLanes = 32>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  return value;
}

__device__ __forceinline__ float sum_over_quad(float value) {
  value += __shfl_xor_sync(0xFFFFFFFFu, value, 1);
  return value + __shfl_xor_sync(0xFFFFFFFFu, value, 2);
}

__device__ __forceinline__ float max_over_quad(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, 2));
}

// Sines and cosines of one position, for the pairs of a head that a lane holds. Frequencies may be loaded long before.
template <int kDim>
struct Rotation {
  static constexpr int kHalf = kDim / 2;
  static constexpr int kPerLane = ceil_div(kHalf, 32);
  float frequency[kPerLane], sine[kPerLane], cosine[kPerLane];

  __device__ __forceinline__ void load(const float* inv_freq, int lane) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) frequency[j] = lane + 32 * j < kHalf ? inv_freq[lane + 32 * j] : 0.0f;
  }

  __device__ __forceinline__ void turn_to(int position, float scaling) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      sincosf(static_cast<float>(position) * frequency[j], &sine[j], &cosine[j]);
      sine[j] *= scaling;
      cosine[j] *= scaling;
    }
  }
};

// One head of `kDim` values, element i and i + kDim / 2 in the same lane, or interleaved 2 * i and 2 * i + 1:
// root-mean-square norm, then rotation.
template <int kDim, bool kInterleaved = false>
struct HeadPairs {
  static constexpr int kHalf = kDim / 2;
  static constexpr int kPerLane = ceil_div(kHalf, 32);
  float low[kPerLane], high[kPerLane];

  static __device__ __forceinline__ int first(int i) { return kInterleaved ? 2 * i : i; }
  static __device__ __forceinline__ int second(int i) { return kInterleaved ? 2 * i + 1 : i + kHalf; }

  __device__ __forceinline__ void load(const bf16* x, int lane) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      low[j] = i < kHalf ? to_float(x[first(i)]) : 0.0f;
      high[j] = i < kHalf ? to_float(x[second(i)]) : 0.0f;
    }
  }

  __device__ __forceinline__ void norm(const HeadPairs& weights, float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) squares += low[j] * low[j] + high[j] * high[j];
    const float scale = rsqrtf(sum_over_lanes(squares) / kDim + eps);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      low[j] *= scale * weights.low[j];
      high[j] *= scale * weights.high[j];
    }
  }

  __device__ __forceinline__ void rotate(const Rotation<kDim>& rotation) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float a = low[j], b = high[j];
      low[j] = a * rotation.cosine[j] - b * rotation.sine[j];
      high[j] = b * rotation.cosine[j] + a * rotation.sine[j];
    }
  }

  template <typename T>
  __device__ __forceinline__ void store(T* y, float factor, int lane) const {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      if (i >= kHalf) continue;
      y[first(i)] = from_float<T>(low[j] * factor);
      y[second(i)] = from_float<T>(high[j] * factor);
    }
  }
};

// What a gate is made of before it multiplies its neighbour.
namespace Activation {
enum Value : int { kNone, kSiluMul, kGeluMul };
}

template <Activation::Value kActivation>
__device__ __forceinline__ float activated(float gate) {
  return kActivation == Activation::kSiluMul ? silu(gate) : gelu_tanh(gate);
}

}  // namespace mpk
