// Softmax, layer norm or RMS norm of rows; a warp takes a row.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

// A weight or bias that is not there.
struct Absent {};

template <typename Place>
constexpr bool kIsAbsent = false;
template <>
constexpr bool kIsAbsent<Absent> = true;

namespace norm {

__device__ __forceinline__ float max_over_lanes(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  return value;
}

// y = (x - shift) * scale of layer norm and RMS norm; exp(x - shift) * scale of softmax.
struct Softmax {
  float shift, scale;

  template <typename Row>
  __device__ Softmax(const Row& x, int columns, int lane, float) {
    float largest = kNegativeInfinity;
    for (int c = lane; c < columns; c += 32) largest = fmaxf(largest, x(c));
    shift = max_over_lanes(largest);
    float sum = 0.0f;
    for (int c = lane; c < columns; c += 32) sum += expf(x(c) - shift);
    scale = 1.0f / sum_over_lanes(sum);
  }
  __device__ float operator()(float x) const { return expf(x - shift) * scale; }
};

struct RmsNorm {
  float scale;

  template <typename Row>
  __device__ RmsNorm(const Row& x, int columns, int lane, float eps) {
    float squares = 0.0f;
    for (int c = lane; c < columns; c += 32) squares += x(c) * x(c);
    scale = rsqrtf(sum_over_lanes(squares) / columns + eps);
  }
  __device__ float operator()(float x) const { return x * scale; }
};

struct LayerNorm {
  float mean, scale;

  template <typename Row>
  __device__ LayerNorm(const Row& x, int columns, int lane, float eps) {
    float sum = 0.0f;
    for (int c = lane; c < columns; c += 32) sum += x(c);
    mean = sum_over_lanes(sum) / columns;
    float squares = 0.0f;
    for (int c = lane; c < columns; c += 32) squares += (x(c) - mean) * (x(c) - mean);
    scale = rsqrtf(sum_over_lanes(squares) / columns + eps);
  }
  __device__ float operator()(float x) const { return (x - mean) * scale; }
};

}  // namespace norm

template <typename Function, typename TaskBlock, typename Result, typename Y, typename X, typename W, typename B>
struct Normalize {
  enum Operand { kX, kWeight, kBiasVector, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps) {
    const TaskBlock block(task);
    context.wait(task);
    for (int row = context.warp(); row < block.rows; row += kConsumerWarps) {
      const auto x = [&](int column) {
        return to_value(*locate<X>(task, kX, block.template element<Result>(row, column)));
      };
      const Function normalized(x, block.columns, context.lane(), eps);
      for (int column = context.lane(); column < block.columns; column += 32) {
        const auto at = block.template element<Result>(row, column);
        const float y =
            normalized(x(column)) * vector<W>(task, kWeight, at, 1.0f) + vector<B>(task, kBiasVector, at, 0.0f);
        store(locate<Y>(task, kY, at), y);
      }
    }
  }

 private:
  template <typename Place>
  static __device__ __forceinline__ float vector(const Task& task, int slot, const Element<Result::kRank>& at,
                                                 float otherwise) {
    if constexpr (kIsAbsent<Place>) {
      return otherwise;
    } else {
      return to_value(*locate<Place>(task, slot, at));
    }
  }
};

}  // namespace mpk
