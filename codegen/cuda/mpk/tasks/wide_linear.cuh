// y = activation(x W^T + bias) + residual for 128 rows of W and many rows of x, on the tensor cores of warpgroups.
//
// W is the product's A, from registers: a packed weight's 16-byte words are the operands of wgmma as they are those of
// m16n8k16 (tasks/linear.cuh), and a warp takes a 16-row tile. x is its B, in shared memory, in blocks whose columns are
// in the weight's order (blocks.cuh). Both come through the ring, 64 columns at a time: a stage of W, then a stage for
// each 128 rows of x. While the products of one step run, the words of W for the next are loaded.
//
// A warp's results are transposed in registers, eight by eight, so that a lane has neighbouring columns of a row of y.
#pragma once

#include "mpk/blocks.cuh"
#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/runtime/fetch.cuh"

namespace mpk {

template <int kN, int kK, int kRows, int kTotalRows, bool kBias, bool kResidual, Activation::Value kActivation,
          bool kBlocked>
struct WideLinear {
  enum Operand { kX, kWeight, kBiasVector, kResidualRows, kRowCount, kY };

  static constexpr int kTileRows = 16;
  static constexpr int kTiles = kN / kTileRows;
  static constexpr int kSteps = kK / kColumnsOfBlock;
  static constexpr int kProducts = kColumnsOfBlock / 16;                  // of a step
  static constexpr int kProductBytes = 512;                               // of a tile of W
  static constexpr int kTileStepBytes = kProducts * kProductBytes;        // of a tile of W in a step
  static constexpr int kTileBytes = kSteps * kTileStepBytes;
  static constexpr int kBlockRows = round_up(kTotalRows, kRowsOfStage);   // of a block of x or y
  static constexpr bool kGated = kActivation != Activation::kNone;
  static constexpr int kTileColumns = kGated ? kTileRows / 2 : kTileRows;  // of y
  static constexpr int kWords = kTileColumns / 8;                          // of a row of y that a lane has
  static constexpr int kGroup = 4;                                         // of eight rows, whose residuals are loaded together
  static_assert(kN % kTileRows == 0 && kK % kColumnsOfBlock == 0, "WideLinear: tiles and blocks are whole");
  static_assert(kStageBytes == kRowsOfStage * kRowBytesOfBlock, "WideLinear: a stage holds rows of a block");
  static_assert(kStageBytes == kConsumerWarps * kTileStepBytes, "WideLinear: a stage holds a step of a tile a warp");

  using Sums = float[64];  // of 128 rows of x

  static __device__ __forceinline__ bool load(Loader& loader, const Task& task) {
    if (!begin_fetch(loader, task)) return false;
    const int halves = ceil_div(rows_of(task, Context::rows_of(loader.step)), kRowsOfStage);
    if (halves == 0) return true;
    const char* weight = operand<const char>(task, kWeight);
    const int tiles = min(kConsumerWarps, kTiles - task.index[0] * kConsumerWarps);
#pragma unroll 1
    for (int step = 0; step < kSteps; ++step) {
      char* stage = loader.begin_stage(tiles * kTileStepBytes);
      if (stage == nullptr) return false;
      for (int t = 0; t < tiles; ++t) {
        const char* tile = weight + static_cast<size_t>(t) * kTileBytes + step * kTileStepBytes;
        loader.copy(stage + t * kTileStepBytes, tile, kTileStepBytes);
      }
      loader.end_stage();
      for (int h = 0; h < halves; ++h) {
        const char* x = block_row(operand<char>(task, kX), kBlockRows, step, h * kRowsOfStage);
        if (!loader.load_stage(x, kStageBytes)) return false;
      }
    }
    return true;
  }

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int rows = rows_of(task, Context::rows_of(context.step));
    context.wait(task);
    let_fetch(context);
    if (kRows > kRowsOfStage && rows > kRowsOfStage) {
      run_halves<ceil_div(kRows, kRowsOfStage)>(context, task, rows);
    } else if (rows > 0) {
      run_halves<1>(context, task, rows);
    }
  }

 private:
  // Active rows of the task's block, of as many in the step.
  static __device__ __forceinline__ int rows_of(const Task& task, int active) {
    return max(0, min(min(active, kTotalRows) - task.index[1] * kRows, kRows));
  }

  static __device__ __forceinline__ bool has_tile(const Context& context, const Task& task) {
    return kTiles % kConsumerWarps == 0 || task.index[0] * kConsumerWarps + context.warp() < kTiles;
  }

  template <int kHalves>
  static __device__ __forceinline__ void run_halves(Context& context, const Task& task, int rows) {
    Sums sums[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[h][i] = 0.0f;
    }
    multiply<kHalves>(context, has_tile(context, task), sums);
    if (!has_tile(context, task)) return;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) finish(context, task, h * kRowsOfStage, rows, sums[h]);
    if constexpr (kBlocked) fence_proxy_async_global();  // the copy engine will read it
  }

  // Stages are given back a step later, when the products that read them are over.
  template <int kHalves>
  static __device__ __forceinline__ void multiply(Context& context, bool has_tile, Sums (&sums)[kHalves]) {
    unsigned weights[2][kProducts][4];
    unsigned used = 0;
#pragma unroll 2
    for (int step = 0; step < kSteps; ++step) {
      unsigned (&a)[kProducts][4] = weights[step % 2];
      const char* stages[1 + kHalves];
      context.acquire_stages(stages);
      if (step == 0) context.stamp(ProfilePhase::kReady);
      load_weights(context, stages[0], has_tile, a);
      wgmma_fence();
#pragma unroll
      for (int p = 0; p < kProducts; ++p) {
#pragma unroll
        for (int h = 0; h < kHalves; ++h) {
          wgmma_m64n128k16(sums[h], a[p], swizzled_descriptor(stages[1 + h], p));
        }
      }
      wgmma_commit();
      if (step > 0) {
        wgmma_wait<1>();
        context.release_stages(used, 1 + kHalves);
      }
      used = a[0][0] ^ a[1][0] ^ a[2][0] ^ a[3][0];
    }
    wgmma_wait<0>();
#pragma unroll
    for (int h = 0; h < kHalves; ++h) pin(sums[h]);
    context.release_stages(used, 1 + kHalves);
  }

  static __device__ __forceinline__ void load_weights(const Context& context, const char* stage, bool has_tile,
                                                      unsigned (&a)[kProducts][4]) {
    const char* mine = stage + context.warp() * kTileStepBytes + context.lane() * 16;
#pragma unroll
    for (int p = 0; p < kProducts; ++p) {
      const Vector16 words = has_tile ? load_vector(mine + p * kProductBytes) : Vector16{};
#pragma unroll
      for (int i = 0; i < 4; ++i) a[p][i] = words.word[i];
    }
  }

  // 128 rows of y, from `first` of the task on, of which those before `rows` are there.
  static __device__ __forceinline__ void finish(const Context& context, const Task& task, int first, int rows,
                                                const Sums& sums) {
    const float2 bias = bias_of(context, task);
#pragma unroll
    for (int j = 0; j < 16; j += kGroup) {
      unsigned residual[kGroup][kWords] = {};
      if constexpr (kResidual) load_residual(context, task, first + 8 * j, rows, residual);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        const float* sum = &sums[4 * (j + i)];
        const int row = first + 8 * (j + i) + context.lane() / 4;
        float2 low = {sum[0] + bias.x, sum[1] + bias.x}, high = {sum[2] + bias.y, sum[3] + bias.y};
        unsigned words[kWords];
        if constexpr (kGated) low = gated(low, high);
        words[0] = finished(low, residual[i][0]);
        if constexpr (!kGated) words[1] = finished(high, residual[i][kWords - 1]);
        if (row < rows) store(context, task, row, words);
      }
    }
  }

  static __device__ __forceinline__ float2 gated(float2 gate, float2 up) {
    return {activated<kActivation>(gate.x) * up.x, activated<kActivation>(gate.y) * up.y};
  }

  // One column of two rows, with the residual's one row of two columns -> one row of two columns.
  static __device__ __forceinline__ unsigned finished(float2 value, unsigned residual) {
    if constexpr (kResidual) {
      const unsigned word = transpose_8x8(residual);
      value = {value.x + low_half(word), value.y + high_half(word)};
    }
    return transpose_8x8(pack_bf16(value.x, value.y));
  }

  // Of rows g and g + 8 of the warp's tile.
  static __device__ __forceinline__ float2 bias_of(const Context& context, const Task& task) {
    if constexpr (!kBias) return {};
    const bf16* bias = operand<const bf16>(task, kBiasVector) + context.warp() * kTileRows + context.lane() / 4;
    return {to_float(bias[0]), to_float(bias[8])};
  }

  // Column of y, from the task's first, of this lane's word of an octet of the tile.
  static __device__ __forceinline__ int column_of(const Context& context, int octet) {
    return context.warp() * kTileColumns + 8 * octet + context.lane() % 4 * 2;
  }

  static __device__ __forceinline__ void load_residual(const Context& context, const Task& task, int first, int rows,
                                                       unsigned (&residual)[kGroup][kWords]) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int row = first + 8 * i + context.lane() / 4;
      const bf16* source = operand<const bf16>(task, kResidualRows) +
                           static_cast<size_t>(min(row, rows - 1)) * task.row_stride[kResidualRows];
#pragma unroll
      for (int w = 0; w < kWords; ++w)
        residual[i][w] = *reinterpret_cast<const unsigned*>(source + column_of(context, w));
    }
  }

  static __device__ __forceinline__ void store(const Context& context, const Task& task, int row,
                                               const unsigned (&words)[kWords]) {
    if constexpr (kBlocked) {
      // an octet is a word of each chunk of its half
      const int octet = context.warp() * kTileColumns / 8, chunk = context.lane() % 4;
      char* y = block_row(operand<char>(task, kY), kBlockRows, octet / 8, row);
      unsigned* target = reinterpret_cast<unsigned*>(y + chunk_offset(row, octet / 4 % 2, chunk)) + octet % 4;
#pragma unroll
      for (int w = 0; w < kWords; ++w) target[w] = words[w];
    } else {
      bf16* y = operand<bf16>(task, kY) + static_cast<size_t>(row) * task.row_stride[kY];
#pragma unroll
      for (int w = 0; w < kWords; ++w) *reinterpret_cast<unsigned*>(y + column_of(context, w)) = words[w];
    }
  }
};

}  // namespace mpk
