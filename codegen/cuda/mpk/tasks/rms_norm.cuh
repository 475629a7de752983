// Root-mean-square norm of groups of columns, and what is added to it. The block takes one group of one row at a time,
// a thread 8 columns, in registers between the two passes over them.
#pragma once

#include "mpk/math.cuh"
#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kWidth, int kGroups, int kRows, bool kResidual, int kXPanel, int kYPanel>
struct RmsNorm {
  enum Operand { kX, kWeight, kResidualRows, kRowCount, kY };

  static_assert(kWidth % 8 == 0, "RmsNorm: columns are taken by 16 bytes");
  static constexpr int kVectors = ceil_div(kWidth / 8, kConsumers);  // of a thread

  struct Scratch {
    float squares[kConsumerWarps];
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps) {
    const int rows = context.rows_from(0, kRows);
    context.wait(task);
    for (int row = 0; row < context.touched_rows_from(0, kRows); ++row) {
      for (int group = 0; group < kGroups; ++group) norm(context, task, row, group * kWidth / 8, row < rows, eps);
    }
  }

 private:
  // From vector `first` of a row on; a row that is not active is only made unwritten.
  static __device__ __forceinline__ void norm(Context& context, const Task& task, int row, int first, bool active,
                                              float eps) {
    Scratch& scratch = context.next_scratch<Scratch>();
    Vector16 x[kVectors], residual[kVectors];
    const auto wanted = [&](int i) { return active && i * kConsumers + context.thread < kWidth / 8; };
    const Places x_at{wanted, [&](int i) {
                        return context.current<const Vector16>(task, kX) +
                               offset_of<kXPanel>(context, task, kX, row, first, i);
                      }};
    const Places residual_at{wanted, [&](int i) {
                               return context.current<const Vector16>(task, kResidualRows) +
                                      offset_of<kYPanel>(context, task, kResidualRows, row, first, i);
                             }};
    context.begin_load(x, x_at);
    if constexpr (kResidual) context.begin_load(residual, residual_at);
    context.end_load(task, kX, x, x_at);
    const float sum = sum_over_lanes(squares_of(x));
    if (context.lane() == 0) scratch.squares[context.warp()] = sum;
    if constexpr (kResidual) context.end_load(task, kResidualRows, residual, residual_at);
    context.stamp(ProfilePhase::kReady);
    context.sync();  // the block has done its reading: what is published from here on tells so
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) total += scratch.squares[w];
    const float scale = rsqrtf(total / kWidth + eps);
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int vector = i * kConsumers + context.thread;
      if (vector >= kWidth / 8) break;
      const Vector16 weight = load_vector(operand<const Vector16>(task, kWeight) + vector);
      context.publish(task, kY, offset_of<kYPanel>(context, task, kY, row, first, i),
                      finished(x[i], weight, residual[i], scale), active);
    }
  }

  template <int kPanel>
  static __device__ __forceinline__ size_t offset_of(const Context& context, const Task& task, int slot, int row,
                                                     int first, int i) {
    return element_offset<kPanel>(row, 8 * (first + i * kConsumers + context.thread), task.row_stride[slot]) / 8;
  }

  static __device__ __forceinline__ float squares_of(const Vector16 (&x)[kVectors]) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      float values[8];
      unpack(x[i], values);
#pragma unroll
      for (int k = 0; k < 8; ++k) squares += values[k] * values[k];
    }
    return squares;
  }

  static __device__ __forceinline__ Vector16 finished(const Vector16& x, const Vector16& weight,
                                                      const Vector16& residual, float scale) {
    float values[8], factors[8], added[8] = {};
    unpack(x, values);
    unpack(weight, factors);
    if constexpr (kResidual) unpack(residual, added);
    Vector16 y;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      y.word[k] = pack_bf16(values[2 * k] * scale * factors[2 * k] + added[2 * k],
                            values[2 * k + 1] * scale * factors[2 * k + 1] + added[2 * k + 1]);
    }
    return y;
  }
};

}  // namespace mpk
