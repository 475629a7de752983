// y = activation(x W^T + bias) + residual for 128 rows of W and many rows of x, on the tensor cores of warpgroups.
//
// W is the product's A, from registers: a packed weight's 16-byte words are the operands of wgmma as they are those of
// m16n8k16 (tasks/linear.cuh), and a warp takes a 16-row tile. x is its B, in shared memory, in blocks whose columns
// are in the weight's order (blocks.cuh). Both come through the ring, 128 columns at a time: a stage of W for each
// warpgroup, then for each of two blocks a stage for each 128 rows of x.
//
// A warp's results are transposed in registers, eight by eight, so that a lane has neighbouring columns of a row of y.
#pragma once

#include "mpk/blocks.cuh"
#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/runtime/fetch.cuh"

namespace mpk {

template <int kTotalRows>
struct WideLinear {
  enum Operand { kX, kWeight, kBiasVector, kResidualRows, kRowCount, kY };
  enum Number { kN = kY + 1, kK, kRows, kForm };  // behind the operands in a record

  static constexpr int kTileRows = 16;
  static constexpr int kStepBlocks = 2;
  static constexpr int kProducts = kColumnsOfBlock / 16;  // of a block
  static constexpr int kGroupProducts = 2, kGroups = kStepBlocks * kProducts / kGroupProducts;
  static constexpr int kProductBytes = 512;                                          // of a tile of W
  static constexpr int kTileStepBytes = kStepBlocks * kProducts * kProductBytes;     // of a tile of W in a step
  static constexpr int kWarpgroups = 2, kStageTiles = kConsumerWarps / kWarpgroups;  // a warp has a tile
  static constexpr int kBlockRows = round_up(kTotalRows, kRowsOfStage);              // of a block of x or y
  static_assert(kStageBytes == kRowsOfStage * kRowBytesOfBlock, "WideLinear: a stage holds rows of a block");
  static_assert(kStageBytes == kStageTiles * kTileStepBytes, "WideLinear: a stage holds a step of a warpgroup's tiles");

  using Sums = float[64];  // of 128 rows of x

  static __device__ __forceinline__ bool load(Loader& loader, const Task& task) {
    if (!begin_fetch(loader, task)) return false;
    const int rows = min(Context::rows_of(loader.step) - first_row(task), capacity(task));
    if (rows <= 0) return true;
    const bool two = rows > kRowsOfStage;
    const int steps = steps_of(task), tiles = tiles_from(task, 0);
    const size_t tile_bytes = static_cast<size_t>(steps) * kTileStepBytes;
    const char *weight = operand<const char>(task, kWeight), *x = operand<const char>(task, kX);
    const unsigned long long once = loader.policy, often = evict_normal_policy();  // all columns of y need x
#pragma unroll 1
    for (int step = 0; step < steps; ++step, weight += kTileStepBytes) {
      loader.policy = once;
      if (!load_weights(loader, weight, tile_bytes, tiles)) return false;
      if (!load_weights(loader, weight + kStageTiles * tile_bytes, tile_bytes, tiles - kStageTiles)) return false;
      loader.policy = often;
#pragma unroll
      for (int block = 0; block < kStepBlocks; ++block, x += kBlockRows * kRowBytesOfBlock) {
        if (!loader.load_stage(x, kStageBytes)) return false;
        if (two && !loader.load_stage(x + kStageBytes, kStageBytes)) return false;
      }
    }
    loader.policy = once;
    return true;
  }

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    context.thread = opaque(context.thread);
    const int rows = context.rows_from(first_row(task), capacity(task));
    context.wait(task);
    let_fetch(context);
    if (rows > kRowsOfStage) {
      run_halves<2>(context, task, rows);
    } else if (rows > 0) {
      run_halves<1>(context, task, rows);
    }
  }

 private:
  // N and K of the product, the rows of a task, and twice the activation, plus one if y is in blocks.
  static __device__ __forceinline__ int number(const Task& task, Number which) {
    return static_cast<int>(task.row_stride[which]);
  }

  static __device__ __forceinline__ int first_row(const Task& task) { return task.index[1] * number(task, kRows); }

  // Rows of the task's block; the last one may have fewer.
  static __device__ __forceinline__ int capacity(const Task& task) {
    return min(number(task, kRows), kTotalRows - first_row(task));
  }

  static __device__ __forceinline__ int steps_of(const Task& task) {
    return number(task, kK) / (kStepBlocks * kColumnsOfBlock);
  }

  // 16-row tiles of W from tile `first` of the task on.
  static __device__ __forceinline__ int tiles_from(const Task& task, int first) {
    return number(task, kN) / kTileRows - task.index[0] * kConsumerWarps - first;
  }

  template <int kHalves>
  static __device__ __forceinline__ void run_halves(Context& context, const Task& task, int rows) {
    Sums sums[kHalves];
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[h][i] = 0.0f;
    }
    const bool has_tile = tiles_from(task, context.warp()) > 0;
    multiply<kHalves>(context, steps_of(task), has_tile, sums);
    if (!has_tile) return;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) finish<kHalves == 1 ? 16 : 4>(context, task, h * kRowsOfStage, rows, sums[h]);
    fence_proxy_async_global();  // the copy engine may read it
  }

  // A step's columns of a warpgroup's tiles, `tile_bytes` apart, of which `count` are there.
  static __device__ __forceinline__ bool load_weights(Loader& loader, const char* tile, size_t tile_bytes, int count) {
    if (!loader.claim_stage(min(max(count, 0), kStageTiles) * kTileStepBytes)) return false;
    char* stage = ring_stage(loader.position.stage);
#pragma unroll
    for (int t = 0; t < kStageTiles; ++t, tile += tile_bytes) {
      if (t < count) loader.copy(stage + t * kTileStepBytes, tile, kTileStepBytes);
    }
    loader.end_stage();
    return true;
  }

  // Of a group of products, which run together: a step has kGroups.
  using Fragments = unsigned[kGroupProducts][4];

  template <int kHalves>
  static __device__ __forceinline__ void multiply(Context& context, int steps, bool has_tile, Sums (&sums)[kHalves]) {
    Fragments weights[kGroups];
    int step = 0;
#pragma unroll 1
    do {
      multiply_step(context, step, has_tile, weights, sums);
    } while (++step < steps);
    wgmma_wait<0>();
#pragma unroll
    for (int h = 0; h < kHalves; ++h) pin(sums[h]);
    context.release_stages(0, kHalves);
  }

  // Two blocks of two groups: while one group runs, the words of W are loaded for that after the next, so that none
  // waits for shared memory. Stages are given back when the products that read them are over, those of the last block
  // in the next step.
  template <int kHalves>
  static __device__ __forceinline__ void multiply_step(Context& context, int step, bool has_tile,
                                                       Fragments (&weights)[kGroups], Sums (&sums)[kHalves]) {
    const char* stages[kWarpgroups];
    const char* x[kHalves];
    context.acquire_stages(stages);
    if (step == 0) context.stamp(ProfilePhase::kReady);
    const char* tile = tile_of(context, stages);
    take_weights(context, tile, has_tile, 0, weights[0]);
    take_weights(context, tile, has_tile, 1, weights[1]);
    context.acquire_stages(x);
    multiply_group(x, 0, weights[0], sums);
    if (step > 0) context.release_stages(0, kHalves);
    take_weights(context, tile, has_tile, 2, weights[2]);
    multiply_group(x, 1, weights[1], sums);
    take_weights(context, tile, has_tile, 3, weights[3]);
    context.acquire_stages(x);
    multiply_group(x, 0, weights[2], sums);
    unsigned used = 0;
#pragma unroll
    for (int i = 0; i < kGroups * kGroupProducts; ++i) used ^= weights[i / kGroupProducts][i % kGroupProducts][0];
    context.release_stages(used, kWarpgroups + kHalves);
    multiply_group(x, 1, weights[3], sums);
  }

  // The warp's tile. Not an index: an array that is indexed by what a warp knows lies in memory.
  static __device__ __forceinline__ const char* tile_of(const Context& context,
                                                        const char* const (&stages)[kWarpgroups]) {
    static_assert(kWarpgroups == 2, "a warp chooses one of two stages");
    const char* stage = context.warp() < kStageTiles ? stages[0] : stages[1];
    return stage + context.warp() % kStageTiles * kTileStepBytes;
  }

  // Begins a group of a block's products. Behind it the group before is over.
  template <int kHalves>
  static __device__ __forceinline__ void multiply_group(const char* const (&x)[kHalves], int group,
                                                        const Fragments& weights, Sums (&sums)[kHalves]) {
    wgmma_fence();
#pragma unroll
    for (int p = 0; p < kGroupProducts; ++p) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        wgmma_m64n128k16(sums[h], weights[p], swizzled_descriptor(x[h], group * kGroupProducts + p));
      }
    }
    wgmma_commit();
    wgmma_wait<1>();
  }

  static __device__ __forceinline__ void take_weights(const Context& context, const char* tile, bool has_tile,
                                                      int group, Fragments& weights) {
#pragma unroll
    for (int p = 0; p < kGroupProducts; ++p) {
      const char* product = tile + (group * kGroupProducts + p) * kProductBytes + context.lane() * 16;
      const Vector16 words = has_tile ? load_shared(product) : Vector16{};
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[p][i] = words.word[i];
    }
  }

  // How a task ends.
  struct Form {
    Activation::Value activation;
    bool blocked;
    float2 bias;  // of rows g and g + 8 of the warp's tile

    // Both activations are x / (1 + exp(-x * (a + b * x^2))): gelu's tanh is such a quotient too. One short piece of
    // code, as it stands at every sum of a lane; the quotient need not be exact, bf16 has eight bits.
    __device__ __forceinline__ float gated(float x) const {
      const bool silu = activation == Activation::kSiluMul;
      const float a = silu ? 1.0f : 1.5957691216057308f, b = silu ? 0.0f : 0.07135481282812353f;
      return __fdividef(x, 1.0f + __expf(-x * (a + b * x * x)));
    }

    // Columns of y that a warp's tile makes.
    __device__ __forceinline__ int columns() const {
      return activation == Activation::kNone ? kTileRows : kTileRows / 2;
    }
  };

  static __device__ __forceinline__ Form form_of(const Context& context, const Task& task) {
    Form form{static_cast<Activation::Value>(number(task, kForm) / 2), number(task, kForm) % 2 != 0, {}};
    if (task.operand[kBiasVector] != 0) {
      const bf16* bias = operand<const bf16>(task, kBiasVector) + context.warp() * kTileRows + context.lane() / 4;
      form.bias = {to_float(bias[0]), to_float(bias[8])};
    }
    return form;
  }

  // 128 rows of y, from `first` of the task on, of which those before `rows` are there. Residuals of kGroup times eight
  // rows are loaded together: as many as registers hold.
  template <int kGroup>
  static __device__ __forceinline__ void finish(const Context& context, const Task& task, int first, int rows,
                                                const Sums& sums) {
    const Form form = form_of(context, task);
#pragma unroll
    for (int j = 0; j < 16; j += kGroup) {
      unsigned residual[kGroup][2] = {};
      if (task.operand[kResidualRows] != 0) load_residual(context, task, form, first + 8 * j, rows, residual);
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
        unsigned words[2];
        finish_words(form, &sums[4 * (j + i)], residual[i], words);
        const int row = first + 8 * (j + i) + context.lane() / 4;
        if (row < rows) store(context, task, form, row, words);
      }
    }
  }

  // Sums of eight rows of x, and of residuals one row in two columns, an octet a word -> words like those.
  static __device__ __forceinline__ void finish_words(const Form& form, const float* sum, const unsigned (&residual)[2],
                                                      unsigned (&words)[2]) {
    float2 low = {sum[0] + form.bias.x, sum[1] + form.bias.x}, high = {sum[2] + form.bias.y, sum[3] + form.bias.y};
    if (form.activation != Activation::kNone) {  // high is what low's gate lets through
      low.x = form.gated(low.x) * high.x;
      low.y = form.gated(low.y) * high.y;
    }
    words[0] = finished(low, residual[0]);
    words[1] = finished(high, residual[1]);
  }

  static __device__ __forceinline__ unsigned finished(float2 value, unsigned residual) {
    const unsigned word = transpose_8x8(residual);
    return transpose_8x8(pack_bf16(value.x + low_half(word), value.y + high_half(word)));
  }

  // Column of y, from the task's first, of this lane's word of an octet of the tile.
  static __device__ __forceinline__ int column_of(const Context& context, const Form& form, int octet) {
    return context.warp() * form.columns() + 8 * octet + context.lane() % 4 * 2;
  }

  template <int kGroup>
  static __device__ __forceinline__ void load_residual(const Context& context, const Task& task, const Form& form,
                                                       int first, int rows, unsigned (&residual)[kGroup][2]) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      const int row = min(first + 8 * i + context.lane() / 4, rows - 1);
      const bf16* source =
          operand<const bf16>(task, kResidualRows) + static_cast<size_t>(row) * task.row_stride[kResidualRows];
      residual[i][0] = *reinterpret_cast<const unsigned*>(source + column_of(context, form, 0));
      if (form.activation == Activation::kNone)
        residual[i][1] = *reinterpret_cast<const unsigned*>(source + column_of(context, form, 1));
    }
  }

  static __device__ __forceinline__ void store(const Context& context, const Task& task, const Form& form, int row,
                                               const unsigned (&words)[2]) {
    unsigned *target, *second;
    if (form.blocked) {  // an octet is a word of each chunk of its half
      const int octet = context.warp() * form.columns() / 8;
      char* y = block_row(operand<char>(task, kY), kBlockRows, octet / 8, row);
      target = reinterpret_cast<unsigned*>(y + chunk_offset(row, octet / 4 % 2, context.lane() % 4)) + octet % 4;
      second = target + 1;
    } else {
      bf16* y = operand<bf16>(task, kY) + static_cast<size_t>(row) * task.row_stride[kY];
      target = reinterpret_cast<unsigned*>(y + column_of(context, form, 0));
      second = target + 4;
    }
    *target = words[0];
    if (form.activation == Activation::kNone) *second = words[1];
  }
};

}  // namespace mpk
