// The end of a pass of a product (tasks/linear.cuh): what the warps summed over their columns becomes rows of y.
//
// Other SMs wait for it. So what it takes besides the sums, rows, addresses, bias and residual, is known before x is
// there; sums are added as trees; and lanes of a warp that one row would leave idle finish another.
#pragma once

#include "mpk/best.cuh"
#include "mpk/math.cuh"
#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

// Of one task. A lane finishes a pair of columns of a pass, in kTurns rows.
template <typename Product, bool kNorm, bool kBias, bool kResidual, bool kBest, Activation::Value kActivation,
          typename Out, int kYPanel>
class Epilogue {
  using Scratch = typename Product::Scratch;
  static constexpr int kTileColumns = Product::kTileColumns;
  static constexpr int kParts = Product::kGated ? 2 : 1;  // weight rows of a column: a gate's, and the up row
  static constexpr int kRowLanes = Product::kHalves == 2 && Product::kPairs <= 16 ? 16 : 32;
  static constexpr int kTurns = Product::kHalves * kRowLanes / 32;
  static_assert(Product::kPairs <= 32, "Linear: a warp finishes a row of a pass");

 public:
  // `rows` of the `capacity` of the task's block are active.
  __device__ __forceinline__ Epilogue(const Context& context, const Task& task, int rows, int capacity)
      : row_(context.warp() + context.lane() / kRowLanes * 8),
        pair_(context.lane() % kRowLanes),
        columns_left_(Product::kOutputColumns - task.index[0] * Product::kTaskColumns - 2 * pair_),
        rows_left_(rows - row_),
        touched_left_(context.touched_rows_from(task.index[1] * Product::kBlockRows, capacity) - row_) {
#pragma unroll
    for (int t = 0; t < kTurns; ++t) {
      const size_t offset = element_offset<kYPanel>(row_ + 8 * t, 2 * pair_, task.row_stride[Product::kY]);
      y_[t] = context.place<unsigned>(task, Product::kY, offset * sizeof(Out) / sizeof(unsigned));
      scale_[t] = 1.0f;
      residual_[t] = 0;
      best_[t] = {kNegativeInfinity, 0};
    }
  }

  // Before the products of the pass whose first tile is `begin`.
  __device__ __forceinline__ void begin_load(const Context& context, const Task& task, int begin, int tiles) {
    if constexpr (kBias) load_bias(task, begin, tiles);
    if constexpr (kResidual) context.begin_load(residual_, residual_places(context, task, begin, tiles));
  }

  // Behind them, before the warps meet.
  __device__ __forceinline__ void end_load(const Context& context, const Task& task, int begin, int tiles) {
    if constexpr (kResidual) {
      context.end_load(task, Product::kResidualRows, residual_, residual_places(context, task, begin, tiles));
    }
  }

  // When they have met. The squares of x's rows stand in the scratch of the first pass.
  __device__ __forceinline__ void finish(const Context& context, const Task& task, const Scratch& scratch, int begin,
                                         int tiles, float eps) {
#pragma unroll
    for (int t = 0; t < kTurns; ++t) {
      if (kNorm && begin == 0) scale_[t] = norm_scale(scratch, t, eps);
      if (8 * t >= touched_left_ || !has_pair(begin, tiles)) continue;
      const float2 value = finished(scratch, t);
      if constexpr (kBest) keep(t, begin, value);
      store(context, task, t, begin, value);
    }
  }

  // The largest value of each row among all passes of the task, with its column.
  __device__ __forceinline__ void publish_best(const Context& context, const Task& task) {
    const int first = task.index[0] * Product::kTaskColumns;
#pragma unroll
    for (int t = 0; t < kTurns; ++t) {
      best_of_lanes<kRowLanes>(best_[t].value, best_[t].column);
      if (8 * t >= touched_left_ || pair_ != 0) continue;
      const size_t row = row_ + 8 * t;
      context.publish(task, Product::kBestValue, row * task.row_stride[Product::kBestValue],
                      __float_as_uint(best_[t].value), is_used(t));
      context.publish(task, Product::kBestColumn, row * task.row_stride[Product::kBestColumn],
                      static_cast<unsigned>(first + best_[t].column), is_used(t));
    }
  }

 private:
  struct Best {
    float value;
    int column;  // from the task's first
  };

  __device__ __forceinline__ bool is_used(int turn) const { return 8 * turn < rows_left_; }

  __device__ __forceinline__ bool has_pair(int begin, int tiles) const {
    return pair_ < tiles * kTileColumns / 2 && begin * kTileColumns < columns_left_;
  }

  // Whether y has the pair's second column: it may end with the first.
  __device__ __forceinline__ bool has_second(int begin) const {
    return Product::kOutputColumns % 2 == 0 || begin * kTileColumns + 1 < columns_left_;
  }

  // Of the pass's rows of weights, the pair's first; a gate's up rows are kTileColumns further.
  __device__ __forceinline__ int weight_row() const {
    return pair_ / (kTileColumns / 2) * Product::kWeightRows + pair_ % (kTileColumns / 2) * 2;
  }

  struct ResidualPlaces {
    const bf16* first;
    size_t turn_stride;
    int rows;  // left from the lane's first

    __device__ __forceinline__ bool wanted(int turn) const { return 8 * turn < rows; }
    __device__ __forceinline__ const unsigned* at(int turn) const {
      return reinterpret_cast<const unsigned*>(first + turn * turn_stride);
    }
  };

  __device__ __forceinline__ ResidualPlaces residual_places(const Context& context, const Task& task, int begin,
                                                            int tiles) const {
    const unsigned stride = task.row_stride[Product::kResidualRows];
    const bf16* first = context.current<const bf16>(task, Product::kResidualRows) +
                        element_offset<kYPanel>(row_, begin * kTileColumns + 2 * pair_, stride);
    return {first, 8 * static_cast<size_t>(stride), has_pair(begin, tiles) ? rows_left_ : 0};
  }

  __device__ __forceinline__ void load_bias(const Task& task, int begin, int tiles) {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      const bf16* bias = operand<const bf16>(task, Product::kBiasVector) + begin * Product::kWeightRows + weight_row() +
                         part * kTileColumns;
      const bool wanted = has_pair(begin, tiles);
      bias_[part] = {wanted ? to_float(bias[0]) : 0.0f, wanted && has_second(begin) ? to_float(bias[1]) : 0.0f};
    }
  }

  __device__ __forceinline__ float norm_scale(const Scratch& scratch, int turn, float eps) const {
    const float (&squares)[kConsumerWarps] = scratch.squares[row_ + 8 * turn];
    return rsqrtf(sum_of_warps([&](int w) { return squares[w]; }) / Product::kInputColumns + eps);
  }

  __device__ __forceinline__ float2 finished(const Scratch& scratch, int turn) const {
    float2 value = summed(scratch, turn, 0);
    if constexpr (Product::kGated) {
      const float2 up = summed(scratch, turn, 1);
      value = {activated<kActivation>(value.x) * up.x, activated<kActivation>(value.y) * up.y};
    }
    if constexpr (kResidual) value = {value.x + low_half(residual_[turn]), value.y + high_half(residual_[turn])};
    return value;
  }

  // Two neighbouring rows of the pass's weights, times x's row.
  __device__ __forceinline__ float2 summed(const Scratch& scratch, int turn, int part) const {
    const int row = row_ + 8 * turn, column = weight_row() + part * kTileColumns;
    float2 sums[kConsumerWarps];
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) {
      sums[w] = *reinterpret_cast<const float2*>(&scratch.partial[w][row][column]);
    }
    const float scale = scale_[turn];
    float2 sum = {scale * sum_of_warps([&](int w) { return sums[w].x; }),
                  scale * sum_of_warps([&](int w) { return sums[w].y; })};
    if constexpr (kBias) sum = {sum.x + bias_[part].x, sum.y + bias_[part].y};
    return sum;
  }

  __device__ __forceinline__ void keep(int turn, int begin, float2 value) {
    if (!is_used(turn)) return;
    const int column = begin * kTileColumns + 2 * pair_;
    keep_best(best_[turn].value, best_[turn].column, value.x, column);
    if (has_second(begin)) keep_best(best_[turn].value, best_[turn].column, value.y, column + 1);
  }

  // Rows of y are padded to a whole number of pairs, so a bf16 pair is one word even at an odd end.
  __device__ __forceinline__ void store(const Context& context, const Task& task, int turn, int begin,
                                        float2 value) const {
    const int offset = begin * kTileColumns * kYPanel;  // whole panels
    if constexpr (sizeof(Out) == 2) {
      const unsigned word = pack_bf16(value.x, has_second(begin) ? value.y : 0.0f);
      context.publish_at(task, Product::kY, y_[turn], offset / 2, word, is_used(turn));
    } else if (is_used(turn)) {
      float* y = reinterpret_cast<float*>(y_[turn].current) + offset;
      y[0] = value.x;
      if (has_second(begin)) y[1] = value.y;
    }
  }

  // The sum of what each warp has, as a tree.
  template <typename Part>
  static __device__ __forceinline__ float sum_of_warps(Part part) {
    float sums[kConsumerWarps];
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) sums[w] = part(w);
#pragma unroll
    for (int distance = 1; distance < kConsumerWarps; distance *= 2) {
#pragma unroll
      for (int w = 0; w < kConsumerWarps; w += 2 * distance) sums[w] += sums[w + distance];
    }
    return sums[0];
  }

  int row_, pair_, columns_left_;  // the lane's first row, its pair of a pass, and columns of y from that on
  int rows_left_, touched_left_;   // from row_ on
  Place<unsigned> y_[kTurns];
  float scale_[kTurns];
  unsigned residual_[kTurns];
  float2 bias_[kParts];
  Best best_[kTurns];
};

}  // namespace mpk
