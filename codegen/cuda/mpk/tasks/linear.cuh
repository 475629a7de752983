// y = activation(norm(x) W^T + bias) + residual for some 16-row tiles of W, on tensor cores at any row count.
//
// W is the product's A (16 rows), x its B (8 rows of activations a product). W streams through the ring in stages of 16
// rows by 512 columns, packed so that one 16-byte word is a lane's whole A operand. The order of columns inside a
// product does not matter as long as both sides agree, so x needs no packing: lane (row, quad) reads columns 8 * quad ..
// 8 * quad + 7 of a 32-column block, the B operands of two products, straight from memory to registers.
//
// The 8 warps share K: each holds its own columns of x and waits for those only. Their partial sums meet in shared memory
// behind the one barrier of a pass and are added in order of warps; warp w finishes rows w and w + 8.
//
// All linear grids of a step run the same code, with their shape as an argument: code that is fetched anew for each task
// costs more than a shape that the compiler does not know.
#pragma once

#include "mpk/best.cuh"
#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

namespace Activation {
enum Value : int { kNone, kSiluMul, kGeluMul };
}

constexpr int kTileRows = 16;
constexpr int kBlockColumns = 32;
constexpr int kProducts = kBlockColumns / 16;                                // of a block
constexpr int kProductBytes = 2 * kTileRows * 16;                            // of W
constexpr int kStageColumns = kStageBytes / (2 * kTileRows);
constexpr int kWarpBlocks = kStageColumns / kBlockColumns / kConsumerWarps;  // of a stage that a warp multiplies
constexpr int kStageVectors = kWarpBlocks * kProducts;                       // of weights that a lane takes of a stage
constexpr int kBlockDistance = kConsumerWarps * kBlockColumns;               // from one block of a warp to its next
constexpr int kGroupStages = 2;                                              // whose weights are in registers at once
constexpr int kMostPassTiles = 4;

struct LinearShape {
  int n, k, task_tiles, pass_tiles, rows;
  bool norm, bias, residual, best, wide;  // wide: y is fp32
  Activation::Value activation;

  __device__ __forceinline__ int padded_k() const { return round_up(k, kBlockColumns); }
  __device__ __forceinline__ int stages() const { return ceil_div(padded_k(), kStageColumns); }  // of a tile
  __device__ __forceinline__ bool gated() const { return activation != Activation::kNone; }
  __device__ __forceinline__ int tile_columns() const { return gated() ? kTileRows / 2 : kTileRows; }  // of y
  __device__ __forceinline__ int output_columns() const { return gated() ? n / 2 : n; }
  __device__ __forceinline__ int tiles_of(const Task& task) const {
    return min(task_tiles, ceil_div(n, kTileRows) - task.index[0] * task_tiles);
  }
};

// kHalves: products that share an A operand, one for each 8 rows of x. kSegmentStages: columns of x in registers at once,
// in stages of W.
template <int kHalves, int kSegmentStages>
struct LinearCode {
  enum Operand { kX, kWeight, kBiasVector, kNormWeight, kResidualRows, kRowCount, kY, kBestValue, kBestColumn };

  static constexpr int kSegmentBlocks = kSegmentStages * kWarpBlocks;
  static constexpr int kChains = kStageVectors / kHalves;                 // of products that need not wait for each other
  static constexpr int kPartialStride = kMostPassTiles * kTileRows + 4;  // so that a quad's stores meet in no bank

  struct Scratch {
    float partial[kConsumerWarps][8 * kHalves][kPartialStride];
    float squares[8 * kHalves][kConsumerWarps];
  };

  struct Best {
    float value[kHalves];
    int column[kHalves];
  };

  static __device__ __forceinline__ bool load(Loader& loader, const Task& task, const LinearShape& shape) {
    const char* first = reinterpret_cast<const char*>(task.operand[kWeight]);
    const int task_tiles = shape.tiles_of(task), stages = shape.stages();
    const unsigned tile_bytes = 2 * kTileRows * shape.padded_k();
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += shape.pass_tiles) {
#pragma unroll 1
      for (int segment = 0; segment < stages; segment += kSegmentStages) {
        if (shape.norm && loads_segment(begin, stages) && !load_norm(loader, task, shape, segment)) return false;
#pragma unroll 1
        for (int t = begin; t < min(begin + shape.pass_tiles, task_tiles); ++t) {
#pragma unroll 1
          for (int stage = segment; stage < min(segment + kSegmentStages, stages); ++stage) {
            const unsigned offset = stage * kStageBytes;
            const char* source = first + static_cast<size_t>(t) * tile_bytes + offset;
            if (!loader.load_stage(source, min(kStageBytes, tile_bytes - offset))) return false;
          }
        }
      }
    }
    return true;
  }

  static __device__ __forceinline__ void run(Context& context, const Task& task, const LinearShape& shape, float eps) {
    const int rows = context.rows_from(task.index[1] * shape.rows, shape.rows);
    context.wait(task);
    const int task_tiles = shape.tiles_of(task);
    Best best;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) best.value[h] = kNegativeInfinity, best.column[h] = 0;
    Input x;
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += shape.pass_tiles) {
      run_pass(context, task, shape, rows, {begin, min(shape.pass_tiles, task_tiles - begin)}, eps, x, best);
    }
    if (shape.best) publish_best(context, task, shape, rows, best);
  }

 private:
  // Tiles of a task: `count` from `begin` on.
  struct Pass {
    int begin, count;
  };

  // A warp's columns of a segment of x, as B operands, and its sums of the squares of x's rows.
  struct Input {
    Vector16 x[kSegmentBlocks * kHalves];
    float squares[kHalves][4];
  };

  // Whether the pass that begins with tile `begin` loads its segments of x: a whole x is kept from pass to pass.
  static __device__ __forceinline__ bool loads_segment(int begin, int stages) {
    return begin == 0 || stages > kSegmentStages;
  }

  // A segment's norm weights have a stage of their own.
  static __device__ __forceinline__ bool load_norm(Loader& loader, const Task& task, const LinearShape& shape,
                                                   int first_stage) {
    const int first = first_stage * kStageColumns;
    return loader.load_stage(reinterpret_cast<const char*>(operand<const bf16>(task, kNormWeight) + first),
                             2 * min(shape.k - first, kSegmentStages * kStageColumns));
  }

  // First column of this lane from a stage on; its next block is kBlockDistance further.
  static __device__ __forceinline__ int lane_column(const Context& context, int first_stage) {
    return first_stage * kStageColumns + context.warp() * kBlockColumns + context.lane() % 4 * 8;
  }

  // Where this lane's vector i of a segment lies: block i / kHalves, row lane / 4 + 8 * (i % kHalves).
  struct SegmentAddress {
    const bf16* x;  // the lane's first row and column
    unsigned row_stride;
    int rows, columns;  // left from there

    __device__ __forceinline__ const Vector16* operator()(int i) const {
      const int half = i % kHalves, column = i / kHalves * kBlockDistance;
      if (8 * half >= rows || column >= columns) return nullptr;
      return reinterpret_cast<const Vector16*>(x + static_cast<size_t>(8 * half) * row_stride + column);
    }
  };

  static __device__ __forceinline__ SegmentAddress segment_address(const Context& context, const Task& task,
                                                                   const LinearShape& shape, int rows,
                                                                   int first_stage) {
    const int row = context.lane() / 4, column = lane_column(context, first_stage);
    const bf16* x = context.current<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + column;
    return {x, task.row_stride[kX], rows - row, min(shape.k, (first_stage + kSegmentStages) * kStageColumns) - column};
  }

  static __device__ __forceinline__ void run_pass(Context& context, const Task& task, const LinearShape& shape, int rows,
                                                  Pass pass, float eps, Input& x, Best& best) {
    Scratch& scratch = context.next_scratch<Scratch>();
    const int stages = shape.stages();
    const Residual source = residual_of(context, task, shape, rows, pass);
    unsigned residual[kHalves] = {};
    if (shape.residual) context.begin_load(residual, source);
#pragma unroll 1
    for (int first = 0; first < stages; first += kSegmentStages) {
      if (loads_segment(pass.begin, stages)) {
        load_segment(context, task, shape, rows, first, x);
        if (pass.begin == 0 && first == 0) context.stamp(ProfilePhase::kReady);
      }
      multiply(context, scratch, shape, x, first, rows, pass.count);
    }
    if (shape.norm) store_squares(context, scratch, x);
    if (shape.residual) context.end_load(task, kResidualRows, residual, source);
    context.sync();
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = context.warp() + 8 * h;
      if (row < context.touched_rows_from(task.index[1] * shape.rows, shape.rows))
        finish_row(context, scratch, task, shape, row, row < rows, pass, eps, residual[h], h, best);
    }
  }

  static __device__ __forceinline__ void load_segment(Context& context, const Task& task, const LinearShape& shape,
                                                      int rows, int first_stage, Input& x) {
    context.load(task, kX, x.x, segment_address(context, task, shape, rows, first_stage));
    if (!shape.norm) return;
    if (first_stage == 0) clear(x.squares);
    scale(context, shape, first_stage, x);
  }

  // Adds the squares of x, then multiplies it by the norm's weight.
  static __device__ __forceinline__ void scale(Context& context, const LinearShape& shape, int first_stage, Input& x) {
    const char* norm = context.acquire_stage() + 2 * lane_column(context, 0);
    const int columns = shape.k - lane_column(context, first_stage);  // beyond there may be anything in the stage
#pragma unroll
    for (int i = 0; i < kSegmentBlocks; ++i) {
      if (i * kBlockDistance >= columns) continue;
      const Vector16 weight = load_vector(norm + 2 * i * kBlockDistance);
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        unsigned (&word)[4] = x.x[i * kHalves + h].word;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          add_squares(word[j], x.squares[h][j]);
          word[j] = multiply_bf16x2(word[j], weight.word[j]);
        }
      }
    }
    context.release_stages();
  }

  static __device__ __forceinline__ void add_squares(unsigned pair, float& sum) {
    sum += low_half(pair) * low_half(pair);
    sum += high_half(pair) * high_half(pair);
  }

  static __device__ __forceinline__ void clear(float (&sums)[kHalves][4]) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[h][j] = 0.0f;
    }
  }

  // Multiplies the tiles of a pass by a segment of x.
  static __device__ __forceinline__ void multiply(Context& context, Scratch& scratch, const LinearShape& shape,
                                                  const Input& x, int first_stage, int rows, int tiles) {
    const int stages = min(kSegmentStages, shape.stages() - first_stage);
#pragma unroll 1
    for (int t = 0; t < tiles; ++t) {
      float sums[kChains][kHalves][4];
#pragma unroll
      for (int c = 0; c < kChains; ++c) clear(sums[c]);
      if (first_stage > 0) add_partial(context, scratch, rows, t, sums[0]);
#pragma unroll
      for (int s = 0; s < kSegmentStages; s += kGroupStages) {
        if (s >= stages) break;
        const int blocks = (shape.padded_k() - (first_stage + s) * kStageColumns) / kBlockColumns;
        multiply_group(context, x, s, min(kGroupStages, stages - s), blocks, sums);
      }
#pragma unroll
      for (int c = 1; c < kChains; ++c) {  // in a fixed order
#pragma unroll
        for (int h = 0; h < kHalves; ++h) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[0][h][j] += sums[c][h][j];
        }
      }
      store_partial(context, scratch, rows, t, sums[0]);
    }
  }

  // `count` stages of a segment from s on, in which `blocks` are left.
  static __device__ __forceinline__ void multiply_group(Context& context, const Input& x, int s, int count, int blocks,
                                                        float (&sums)[kChains][kHalves][4]) {
    const char* stages[kGroupStages];
    context.acquire_stages(stages, count);
    Vector16 weights[kGroupStages][kStageVectors];
#pragma unroll
    for (int g = 0; g < kGroupStages; ++g) {
      if (g < count) load_weights(context, stages[g], blocks - g * kWarpBlocks * kConsumerWarps, weights[g]);
    }
#pragma unroll
    for (int g = 0; g < kGroupStages; ++g) {
      if (g < count) multiply_stage(x, s + g, weights[g], sums);
    }
    context.release_stages(count);
  }

  static __device__ __forceinline__ void load_weights(const Context& context, const char* stage, int blocks,
                                                      Vector16 (&weights)[kStageVectors]) {
    const char* first = stage + context.warp() * kProducts * kProductBytes + context.lane() * 16;
#pragma unroll
    for (int i = 0; i < kStageVectors; ++i) {
      const int block = i / kProducts * kConsumerWarps;
      const bool inside = context.warp() + block < blocks;
      weights[i] = inside ? load_vector(first + (block * kProducts + i % kProducts) * kProductBytes) : Vector16{};
    }
  }

  static __device__ __forceinline__ void multiply_stage(const Input& x, int stage,
                                                        const Vector16 (&weights)[kStageVectors],
                                                        float (&sums)[kChains][kHalves][4]) {
#pragma unroll
    for (int i = 0; i < kStageVectors; ++i) {
      const unsigned (&w)[4] = weights[i].word;
      const int block = stage * kWarpBlocks + i / kProducts, product = i % kProducts;
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const unsigned (&b)[4] = x.x[block * kHalves + h].word;
        mma_m16n8k16(sums[i % kChains][h], w[0], w[1], w[2], w[3], b[2 * product], b[2 * product + 1]);
      }
    }
  }

  // A lane's sums are rows lane / 4 and lane / 4 + 8 of the tile, for two neighbouring rows of x.
  template <typename Visit>
  static __device__ __forceinline__ void visit_partial(const Context& context, Scratch& scratch, int rows, int tile,
                                                       float (&sums)[kHalves][4], Visit visit) {
    const int column = tile * kTileRows + context.lane() / 4;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = 8 * h + context.lane() % 4 * 2;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (row + j % 2 < rows) {
          visit(sums[h][j], scratch.partial[context.warp()][row + j % 2][column + j / 2 * 8]);
        }
      }
    }
  }

  static __device__ __forceinline__ void add_partial(const Context& context, Scratch& scratch, int rows, int tile,
                                                     float (&sums)[kHalves][4]) {
    visit_partial(context, scratch, rows, tile, sums, [](float& sum, float& partial) { sum += partial; });
  }

  static __device__ __forceinline__ void store_partial(const Context& context, Scratch& scratch, int rows, int tile,
                                                       float (&sums)[kHalves][4]) {
    visit_partial(context, scratch, rows, tile, sums, [](float& sum, float& partial) { partial = sum; });
  }

  static __device__ __forceinline__ void store_squares(const Context& context, Scratch& scratch, const Input& x) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const float sum = sum_over_quad(x.squares[h][0] + x.squares[h][1] + x.squares[h][2] + x.squares[h][3]);
      if (context.lane() % 4 == 0) scratch.squares[context.lane() / 4 + 8 * h][context.warp()] = sum;
    }
  }

  // Column of y, from the task's first, of this lane's pair.
  static __device__ __forceinline__ int pair_column(const Context& context, const LinearShape& shape, Pass pass) {
    return pass.begin * shape.tile_columns() + 2 * context.lane();
  }

  static __device__ __forceinline__ int first_column(const Task& task, const LinearShape& shape) {
    return task.index[0] * shape.task_tiles * shape.tile_columns();
  }

  static __device__ __forceinline__ bool has_pair(const Context& context, const Task& task, const LinearShape& shape,
                                                  Pass pass) {
    return 2 * context.lane() < pass.count * shape.tile_columns() &&
           first_column(task, shape) + pair_column(context, shape, pass) < shape.output_columns();
  }

  // Where the residual of this lane's pairs lies, in rows warp and warp + 8.
  struct Residual {
    const bf16* first;
    unsigned row_stride;
    int rows;  // left from the lane's first

    __device__ __forceinline__ const unsigned* operator()(int half) const {
      if (8 * half >= rows) return nullptr;
      return reinterpret_cast<const unsigned*>(first + static_cast<size_t>(8 * half) * row_stride);
    }
  };

  static __device__ __forceinline__ Residual residual_of(const Context& context, const Task& task,
                                                         const LinearShape& shape, int rows, Pass pass) {
    const unsigned stride = task.row_stride[kResidualRows];
    const bf16* first = context.current<const bf16>(task, kResidualRows) +
                        static_cast<size_t>(context.warp()) * stride + pair_column(context, shape, pass);
    return {first, stride, has_pair(context, task, shape, pass) ? rows - context.warp() : 0};
  }

  static __device__ __forceinline__ void finish_row(const Context& context, const Scratch& scratch, const Task& task,
                                                    const LinearShape& shape, int row, bool used, Pass pass, float eps,
                                                    unsigned residual, int half, Best& best) {
    if (!has_pair(context, task, shape, pass)) return;
    const int column = pair_column(context, shape, pass), first = first_column(task, shape);
    const bool second = first + column + 1 < shape.output_columns();
    float2 value = {};
    if (used) {
      value = finish(context, scratch, task, shape, row, pass, eps);
      if (shape.residual) value = {value.x + low_half(residual), value.y + high_half(residual)};
      if (shape.best) {
        keep_best(best.value[half], best.column[half], value.x, first + column);
        if (second) keep_best(best.value[half], best.column[half], value.y, first + column + 1);
      }
    }
    store_pair(context, task, shape, static_cast<size_t>(row) * task.row_stride[kY] + column, value, used, second);
  }

  // This lane's two columns of y, but for the residual.
  static __device__ __forceinline__ float2 finish(const Context& context, const Scratch& scratch, const Task& task,
                                                  const LinearShape& shape, int row, Pass pass, float eps) {
    const int pairs = shape.tile_columns() / 2;  // of a tile
    const int weight_row = context.lane() / pairs * kTileRows + context.lane() % pairs * 2;  // a gate's up is 8 further
    const float scale = shape.norm ? norm_scale(scratch, shape, row, eps) : 1.0f;
    const float2 value = sum_of_row(scratch, task, shape, row, weight_row, pass, scale);
    if (!shape.gated()) return value;
    const float2 up = sum_of_row(scratch, task, shape, row, weight_row + kTileRows / 2, pass, scale);
    if (shape.activation == Activation::kSiluMul) return {silu(value.x) * up.x, silu(value.y) * up.y};
    return {gelu_tanh(value.x) * up.x, gelu_tanh(value.y) * up.y};
  }

  // Rows of y are padded to a whole number of pairs, so a bf16 pair is one word even at an odd end.
  static __device__ __forceinline__ void store_pair(const Context& context, const Task& task, const LinearShape& shape,
                                                    size_t offset, float2 value, bool used, bool second) {
    if (!shape.wide) {
      context.publish(task, kY, offset / 2, pack_bf16(value.x, second ? value.y : 0.0f), used);
    } else if (used) {
      float* y = operand<float>(task, kY) + offset;
      y[0] = value.x;
      if (second) y[1] = value.y;
    }
  }

  static __device__ __forceinline__ float norm_scale(const Scratch& scratch, const LinearShape& shape, int row,
                                                     float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) squares += scratch.squares[row][w];
    return rsqrtf(squares / shape.k + eps);
  }

  // Two neighbouring rows of the pass's weights, times x's row, summed over the warps.
  static __device__ __forceinline__ float2 sum_of_row(const Scratch& scratch, const Task& task, const LinearShape& shape,
                                                      int row, int weight_row, Pass pass, float scale) {
    float2 sum = {};
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) {
      const float2 part = *reinterpret_cast<const float2*>(&scratch.partial[w][row][weight_row]);
      sum = {sum.x + part.x, sum.y + part.y};
    }
    sum = {sum.x * scale, sum.y * scale};
    if (!shape.bias) return sum;
    const int of_task = pass.begin * kTileRows + weight_row;
    const bf16* bias = operand<const bf16>(task, kBiasVector) + of_task;
    const bool second = task.index[0] * shape.task_tiles * kTileRows + of_task + 1 < shape.n;
    return {sum.x + to_float(bias[0]), sum.y + (second ? to_float(bias[1]) : 0.0f)};
  }

  // The largest value of each row among all passes of the task, with its column.
  static __device__ __forceinline__ void publish_best(const Context& context, const Task& task,
                                                      const LinearShape& shape, int rows, Best& best) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = context.warp() + 8 * h;
      best_of_lanes(best.value[h], best.column[h]);
      if (row >= context.touched_rows_from(task.index[1] * shape.rows, shape.rows) || context.lane() != 0) continue;
      context.publish(task, kBestValue, static_cast<size_t>(row) * task.row_stride[kBestValue],
                      __float_as_uint(best.value[h]), row < rows);
      context.publish(task, kBestColumn, static_cast<size_t>(row) * task.row_stride[kBestColumn],
                      static_cast<unsigned>(best.column[h]), row < rows);
    }
  }
};

template <int kN, int kK, int kTaskTiles, int kTiles, int kRows, bool kNorm, bool kBias, bool kResidual, bool kBest,
          Activation::Value kActivation, typename Out>
struct Linear {
  using Code = LinearCode<ceil_div(kRows, 8), (kK <= 4 * kStageColumns ? 4 : 8) / ceil_div(kRows, 8)>;

  static constexpr LinearShape kShape{kN,    kK,    kTaskTiles, kTiles, kRows, kNorm,
                                      kBias, kResidual, kBest, sizeof(Out) == 4, kActivation};
  static_assert(kRows <= 16, "Linear: two products hold 16 rows");
  static_assert(kTiles <= kMostPassTiles, "Linear: a warp finishes a row of a pass, a lane two columns");

  static __device__ __forceinline__ bool load(Loader& loader, const Task& task) {
    return Code::load(loader, task, kShape);
  }
};

}  // namespace mpk
