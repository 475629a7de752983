// Functions that several task bodies share. Reductions have a fixed order: the same inputs give the same bits.
#pragma once

#include "mpk/types.cuh"

namespace mpk {

__device__ __forceinline__ float silu(float x) { return x / (1.0f + __expf(-x)); }

__device__ __forceinline__ float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

template <int kLanes = 32>
__device__ __forceinline__ float sum_over_lanes(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  return value;
}

// Lane `lane` of a warp holds elements i and i + kDim / 2 of a head, for i = lane, lane + 32, ...
template <int kDim>
struct HeadLanes {
  static constexpr int kHalf = kDim / 2;
  static constexpr int kPerLane = ceil_div(kHalf, 32);
};

// What a head is multiplied by and turned by; weights and positions are known before the head is.
template <int kDim>
struct HeadFactors : HeadLanes<kDim> {
  using HeadLanes<kDim>::kHalf;
  using HeadLanes<kDim>::kPerLane;
  float low[kPerLane], high[kPerLane], cosine[kPerLane], sine[kPerLane];

  __device__ __forceinline__ void load_norm(const bf16* weight, int lane) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      low[j] = i < kHalf ? to_float(weight[i]) : 0.0f;
      high[j] = i < kHalf ? to_float(weight[i + kHalf]) : 0.0f;
    }
  }

  __device__ __forceinline__ void turn_to(const float* inv_freq, int position, float scaling, int lane) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      sincosf(static_cast<float>(position) * (i < kHalf ? inv_freq[i] : 0.0f), &sine[j], &cosine[j]);
      sine[j] *= scaling;
      cosine[j] *= scaling;
    }
  }
};

// One head, for a root-mean-square norm and a rotation of the halves against each other.
template <int kDim>
struct HeadPairs : HeadLanes<kDim> {
  using HeadLanes<kDim>::kHalf;
  using HeadLanes<kDim>::kPerLane;
  float low[kPerLane], high[kPerLane];

  __device__ __forceinline__ void load(const bf16* x, int lane) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      low[j] = i < kHalf ? to_float(x[i]) : 0.0f;
      high[j] = i < kHalf ? to_float(x[i + kHalf]) : 0.0f;
    }
  }

  __device__ __forceinline__ void norm(const HeadFactors<kDim>& factors, float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) squares += low[j] * low[j] + high[j] * high[j];
    const float scale = rsqrtf(sum_over_lanes(squares) / kDim + eps);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      low[j] *= scale * factors.low[j];
      high[j] *= scale * factors.high[j];
    }
  }

  __device__ __forceinline__ void rotate(const HeadFactors<kDim>& factors) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const float a = low[j], b = high[j];
      low[j] = a * factors.cosine[j] - b * factors.sine[j];
      high[j] = b * factors.cosine[j] + a * factors.sine[j];
    }
  }

  template <typename T>
  __device__ __forceinline__ void store(T* y, float factor, int lane) const {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int i = lane + 32 * j;
      if (i >= kHalf) continue;
      y[i] = from_float<T>(low[j] * factor);
      y[i + kHalf] = from_float<T>(high[j] * factor);
    }
  }
};

}  // namespace mpk
