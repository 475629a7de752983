// y = activation(norm(x) W^T + bias) + residual for some 8-row tiles of W, on tensor cores at any row count.
//
// x is the product's A (16 rows, those beyond the step's are zero), W its B (8 columns). W streams through the ring in
// stages of 8 rows by 1024 columns, packed so that lane (r, q) of a warp finds row r, columns 8q..8q+7 of a 32-column
// block in one 16-byte word. The order of columns inside a product does not matter as long as both sides agree, so x
// needs no packing either: its lane reads columns 8q..8q+7 of row r, straight from memory to registers.
//
// The 8 warps share K: each waits for its own columns of x only. Their partial sums meet in shared memory behind the
// one barrier of a pass and are added in order of warps; warp w finishes rows w and w + 8.
#pragma once

#include "mpk/best.cuh"
#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

namespace Activation {
enum Value : int { kNone, kSiluMul, kGeluMul };
}

constexpr int kTileRows = 8;
constexpr int kBlockColumns = 32;
constexpr int kBlockBytes = 2 * kTileRows * kBlockColumns;
constexpr int kStageColumns = kStageBytes / (2 * kTileRows);
constexpr int kWarpBlocks = kStageColumns / kBlockColumns / kConsumerWarps;  // of a stage that a warp multiplies

template <int kN, int kK, int kTaskTiles, int kTiles, int kRows, bool kNorm, bool kBias, bool kResidual, bool kBest,
          Activation::Value kActivation, typename Out>
struct Linear {
  enum Operand { kX, kWeight, kBiasVector, kNormWeight, kResidualRows, kRowCount, kY, kBestValue, kBestColumn };

  static constexpr int kPaddedK = round_up(kK, kBlockColumns);
  static constexpr unsigned kTileBytes = kPaddedK * kTileRows * 2;
  static constexpr int kTotalTiles = ceil_div(kN, kTileRows);
  static constexpr bool kGated = kActivation != Activation::kNone;
  static constexpr int kOutputColumns = kGated ? kN / 2 : kN;
  static constexpr int kHalves = ceil_div(kRows, 8);  // of the product's 16 rows that hold any
  static constexpr int kChunks = ceil_div(kPaddedK, kStageColumns);
  static constexpr int kTaskColumns = kTaskTiles * kTileRows / (kGated ? 2 : 1);  // of y
  static constexpr int kPairs = kTiles * kTileRows / (kGated ? 4 : 2);            // a lane finishes two columns
  static constexpr int kPartialStride = kTiles * kTileRows + 8;  // so that rows meet in no bank of shared memory
  static_assert(kRows <= 16, "Linear: a product holds 16 rows");
  static_assert(kPairs <= 32, "Linear: a warp finishes a row of a pass");
  static_assert(!kGated || (kTiles % 2 == 0 && kTaskTiles % 2 == 0),
                "Linear: a gate's tile and its up tile go together");

  struct Scratch {
    float partial[kConsumerWarps][8 * kHalves][kPartialStride];
    float squares[8 * kHalves][kConsumerWarps];
  };

  struct Best {
    float value[kHalves];
    int column[kHalves];
  };

  static __device__ bool load(Loader& loader, const Task& task) {
    const char* first = reinterpret_cast<const char*>(task.operand[kWeight]);
    const int task_tiles = min(kTaskTiles, kTotalTiles - task.index[0] * kTaskTiles);
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += kTiles) {
#pragma unroll 1
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int columns = min(kStageColumns, kPaddedK - chunk * kStageColumns);
#pragma unroll 1
        for (int t = begin; t < min(begin + kTiles, task_tiles); ++t) {
          const char* source = first + static_cast<size_t>(t) * kTileBytes + chunk * kStageBytes;
          if (!loader.load_stage(source, columns * kTileRows * 2)) return false;
        }
      }
    }
    return true;
  }

  static __device__ void run(Context& context, const Task& task, float eps) {
    const int rows = context.rows_from(task.index[1] * kRows, kRows);
    context.wait(task);
    const int task_tiles = min(kTaskTiles, kTotalTiles - task.index[0] * kTaskTiles);
    Best best;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) best.value[h] = kNegativeInfinity, best.column[h] = 0;
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += kTiles) {
      run_pass(context, task, rows, begin, min(kTiles, task_tiles - begin), eps, best);
    }
    if constexpr (kBest) publish_best(context, task, rows, best);
  }

 private:
  // A warp's columns of one chunk of x, as the product's A operand.
  struct Chunk {
    Vector16 x[kWarpBlocks * kHalves];
  };

  // Where this lane's part of block i / kHalves of the chunk and row lane / 4 + 8 * (i % kHalves) lies.
  struct ChunkAddress {
    const bf16* x;  // first row of the lane, first column of the chunk's lane
    unsigned row_stride;
    int rows, columns;  // left from there

    __device__ __forceinline__ const Vector16* operator()(int i) const {
      const int half = i % kHalves, column = i / kHalves * kConsumerWarps * kBlockColumns;
      if (8 * half >= rows || column >= columns) return nullptr;
      return reinterpret_cast<const Vector16*>(x + static_cast<size_t>(8 * half) * row_stride + column);
    }
  };

  static __device__ __forceinline__ ChunkAddress chunk_address(const Context& context, const Task& task, int rows,
                                                               int chunk) {
    const int row = context.lane() / 4;
    const int column = chunk * kStageColumns + context.warp() * kBlockColumns + context.lane() % 4 * 8;
    const bf16* x = context.current<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + column;
    return {x, task.row_stride[kX], rows - row, kK - column};
  }

  static __device__ __forceinline__ void load_norm(const Context& context, const Task& task, int chunk,
                                                   Vector16 (&norm)[kWarpBlocks]) {
    const int first = chunk * kStageColumns + context.warp() * kBlockColumns + context.lane() % 4 * 8;
#pragma unroll
    for (int i = 0; i < kWarpBlocks; ++i) {
      const int column = first + i * kConsumerWarps * kBlockColumns;
      norm[i] = column < kK ? load_vector(operand<const bf16>(task, kNormWeight) + column) : Vector16{};
    }
  }

  static __device__ __forceinline__ void run_pass(Context& context, const Task& task, int rows, int begin, int tiles,
                                                  float eps, Best& best) {
    Scratch& scratch = context.next_scratch<Scratch>();
    unsigned residual[kHalves] = {};
    if constexpr (kResidual) context.begin_load(residual, residual_address(context, task, rows, begin, tiles));
    float sums[kTiles][4] = {};
    float squares[kHalves] = {};
    Chunk next;
    context.begin_load(next.x, chunk_address(context, task, rows, 0));
#pragma unroll 1
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      Chunk current = next;
      Vector16 norm[kWarpBlocks];
      if constexpr (kNorm) load_norm(context, task, chunk, norm);
      context.end_load(task, kX, current.x, chunk_address(context, task, rows, chunk));
      if (chunk == 0 && begin == 0) context.stamp(ProfilePhase::kReady);
      if (chunk + 1 < kChunks) context.begin_load(next.x, chunk_address(context, task, rows, chunk + 1));
      if constexpr (kNorm) scale(current, norm, squares);
      multiply(context, current, chunk, tiles, sums);
    }
    store_partial(context, scratch, rows, sums, squares);
    if constexpr (kResidual) {
      context.end_load(task, kResidualRows, residual, residual_address(context, task, rows, begin, tiles));
    }
    context.sync();
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = context.warp() + 8 * h;
      if (row < context.touched_rows_from(task.index[1] * kRows, kRows))
        finish_row(context, scratch, task, row, row < rows, begin, tiles, eps, residual[h], h, best);
    }
  }

  // Times the norm's weight; the squares of x are summed on the way.
  static __device__ __forceinline__ void scale(Chunk& chunk, const Vector16 (&norm)[kWarpBlocks],
                                               float (&squares)[kHalves]) {
#pragma unroll
    for (int i = 0; i < kWarpBlocks * kHalves; ++i) {
      float value[8], weight[8];
      unpack(chunk.x[i], value);
      unpack(norm[i / kHalves], weight);
#pragma unroll
      for (int j = 0; j < 8; ++j) squares[i % kHalves] += value[j] * value[j];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        chunk.x[i].word[j] = pack_bf16(value[2 * j] * weight[2 * j], value[2 * j + 1] * weight[2 * j + 1]);
      }
    }
  }

  // The weights of a stage are in registers before the products of the one before begin. Two chains of products a tile,
  // so that one need not wait for the other; their sum has a fixed order.
  static __device__ __forceinline__ void multiply(Context& context, const Chunk& chunk, int number, int tiles,
                                                  float (&sums)[kTiles][4]) {
    const int blocks = min(kStageColumns, kPaddedK - number * kStageColumns) / kBlockColumns;
    Vector16 weights[2][kWarpBlocks];
    load_weights(context, blocks, weights[0]);
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      if (t >= tiles) break;
      if (t + 1 < tiles) load_weights(context, blocks, weights[(t + 1) % 2]);
      const Vector16(&w)[kWarpBlocks] = weights[t % 2];
      float chain[4] = {};
#pragma unroll
      for (int i = 0; i < kWarpBlocks; ++i) {
        multiply_block(chunk, i, 0, w[i], sums[t]);
        multiply_block(chunk, i, 1, w[i], chain);
      }
#pragma unroll
      for (int j = 0; j < 2 * kHalves; ++j) sums[t][j] += chain[j];
    }
  }

  static __device__ __forceinline__ void load_weights(Context& context, int blocks, Vector16 (&w)[kWarpBlocks]) {
    const char* stage = context.acquire_stage() + context.warp() * kBlockBytes + context.lane() * 16;
#pragma unroll
    for (int i = 0; i < kWarpBlocks; ++i) {
      const bool inside = kPaddedK % kStageColumns == 0 || context.warp() + i * kConsumerWarps < blocks;
      w[i] = inside ? load_vector(stage + i * kConsumerWarps * kBlockBytes) : Vector16{};
    }
    context.release_stage();
  }

  // One of the two products of a block.
  static __device__ __forceinline__ void multiply_block(const Chunk& chunk, int block, int product, const Vector16& w,
                                                        float (&sum)[4]) {
    const unsigned (&low)[4] = chunk.x[block * kHalves].word;
    const unsigned (&high)[4] = chunk.x[block * kHalves + kHalves - 1].word;
    mma_m16n8k16(sum, low[2 * product], kHalves > 1 ? high[2 * product] : 0, low[2 * product + 1],
                 kHalves > 1 ? high[2 * product + 1] : 0, w.word[2 * product], w.word[2 * product + 1]);
  }

  static __device__ __forceinline__ void store_partial(const Context& context, Scratch& scratch, int rows,
                                                       const float (&sums)[kTiles][4],
                                                       const float (&squares)[kHalves]) {
    const int lane = context.lane(), quad = lane % 4;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = lane / 4 + 8 * h;
      if constexpr (kNorm) {
        const float sum = sum_over_quad(squares[h]);
        if (quad == 0) scratch.squares[row][context.warp()] = sum;
      }
      if (row >= rows) continue;
#pragma unroll
      for (int t = 0; t < kTiles; ++t) {
        float2 pair = {sums[t][2 * h], sums[t][2 * h + 1]};
        *reinterpret_cast<float2*>(&scratch.partial[context.warp()][row][t * kTileRows + 2 * quad]) = pair;
      }
    }
  }

  // Column of y, from the task's first, of this lane's pair in the pass whose first tile is `begin`.
  static __device__ __forceinline__ int pair_column(const Context& context, int begin) {
    return begin * kTileRows / (kGated ? 2 : 1) + 2 * context.lane();
  }

  static __device__ __forceinline__ bool has_pair(const Context& context, const Task& task, int begin, int tiles) {
    const int first = task.index[0] * kTaskColumns;
    return context.lane() < tiles * kTileRows / (kGated ? 4 : 2) &&
           first + pair_column(context, begin) < kOutputColumns;
  }

  struct ResidualAddress {
    const bf16* first;
    unsigned row_stride;
    int rows;  // left from the lane's first

    __device__ __forceinline__ const unsigned* operator()(int half) const {
      if (8 * half >= rows) return nullptr;
      return reinterpret_cast<const unsigned*>(first + static_cast<size_t>(8 * half) * row_stride);
    }
  };

  static __device__ __forceinline__ ResidualAddress residual_address(const Context& context, const Task& task, int rows,
                                                                     int begin, int tiles) {
    const unsigned stride = task.row_stride[kResidualRows];
    const bf16* first = context.current<const bf16>(task, kResidualRows) +
                        static_cast<size_t>(context.warp()) * stride + pair_column(context, begin);
    return {first, stride, has_pair(context, task, begin, tiles) ? rows - context.warp() : 0};
  }

  static __device__ __forceinline__ void finish_row(const Context& context, const Scratch& scratch, const Task& task,
                                                    int row, bool used, int begin, int tiles, float eps,
                                                    unsigned residual, int half, Best& best) {
    if (!has_pair(context, task, begin, tiles)) return;
    const int column = pair_column(context, begin);
    float2 value = {};
    if (used) {
      const float scale = kNorm ? norm_scale(scratch, row, eps) : 1.0f;
      const int pair = context.lane(), tile = kGated ? pair / 4 * 2 : pair / 4;
      value = finish(scratch, task, row, begin + tile, begin, pair % 4, scale);
      if constexpr (kGated) {
        const float2 up = finish(scratch, task, row, begin + tile + 1, begin, pair % 4, scale);
        value = {activation(value.x) * up.x, activation(value.y) * up.y};
      }
      if constexpr (kResidual) value = {value.x + low_half(residual), value.y + high_half(residual)};
    }
    const int first = task.index[0] * kTaskColumns;
    const bool second = first + column + 1 < kOutputColumns;
    if constexpr (kBest) {
      if (used) keep_best(best.value[half], best.column[half], value.x, first + column);
      if (used && second) keep_best(best.value[half], best.column[half], value.y, first + column + 1);
    }
    store_pair(context, task, static_cast<size_t>(row) * task.row_stride[kY] + column, value, used, second);
  }

  static __device__ __forceinline__ float activation(float gate) {
    return kActivation == Activation::kSiluMul ? silu(gate) : gelu_tanh(gate);
  }

  // Rows of y are padded to a whole number of pairs, so a bf16 pair is one word even at an odd end.
  static __device__ __forceinline__ void store_pair(const Context& context, const Task& task, size_t offset,
                                                    float2 value, bool used, bool second) {
    if constexpr (sizeof(Out) == 2) {
      context.publish(task, kY, offset / 2, pack_bf16(value.x, second ? value.y : 0.0f), used);
    } else if (used) {
      float* y = operand<float>(task, kY) + offset;
      y[0] = value.x;
      if (second) y[1] = value.y;
    }
  }

  static __device__ __forceinline__ float norm_scale(const Scratch& scratch, int row, float eps) {
    float squares = 0.0f;
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) squares += scratch.squares[row][w];
    return rsqrtf(squares / kK + eps);
  }

  // Two neighbouring columns of a tile, summed over the warps.
  static __device__ __forceinline__ float2 finish(const Scratch& scratch, const Task& task, int row, int tile,
                                                  int begin, int pair, float scale) {
    float2 sum = {};
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) {
      const int column = (tile - begin) * kTileRows + 2 * pair;
      const float2 part = *reinterpret_cast<const float2*>(&scratch.partial[w][row][column]);
      sum = {sum.x + part.x, sum.y + part.y};
    }
    sum = {sum.x * scale, sum.y * scale};
    if constexpr (kBias) {
      const bf16* bias = operand<const bf16>(task, kBiasVector) + tile * kTileRows + 2 * pair;
      const bool second = (task.index[0] * kTaskTiles + tile) * kTileRows + 2 * pair + 1 < kN;
      sum = {sum.x + to_float(bias[0]), sum.y + (second ? to_float(bias[1]) : 0.0f)};
    }
    return sum;
  }

  // The largest value of each row among all passes of the task, with its column.
  static __device__ __forceinline__ void publish_best(const Context& context, const Task& task, int rows, Best& best) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      const int row = context.warp() + 8 * h;
      best_of_lanes(best.value[h], best.column[h]);
      if (row >= context.touched_rows_from(0, kRows) || context.lane() != 0) continue;
      context.publish(task, kBestValue, static_cast<size_t>(row) * task.row_stride[kBestValue],
                      __float_as_uint(best.value[h]), row < rows);
      context.publish(task, kBestColumn, static_cast<size_t>(row) * task.row_stride[kBestColumn],
                      static_cast<unsigned>(best.column[h]), row < rows);
    }
  }
};

}  // namespace mpk
