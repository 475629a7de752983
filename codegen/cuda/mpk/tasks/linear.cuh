// y = activation(norm(x) W^T + bias) + residual for some 16-row tiles of W, on tensor cores at any row count.
//
// W is the product's A (16 rows), x its B (8 rows of activations a product). W streams through the ring in stages of 16
// rows by 512 columns, packed so that one 16-byte word is a lane's whole A operand. The order of columns inside a
// product does not matter as long as both sides agree, so lane (row, quad) reads columns 8 * quad .. 8 * quad + 7 of a
// 32-column block of x, the B operands of two products, straight from memory to registers: whole lines, if in panels.
//
// The 8 warps share K: each holds its own columns of x and waits for those only. Their partial sums meet in shared
// memory behind the one barrier of a pass, and are added and finished there (epilogue.cuh).
#pragma once

#include "mpk/epilogue.cuh"
#include "mpk/runtime/loader.cuh"

namespace mpk {

constexpr int kTileRows = 16;
constexpr int kBlockColumns = 32;
constexpr int kProducts = kBlockColumns / 16;      // of a block
constexpr int kProductBytes = 2 * kTileRows * 16;  // of W
constexpr int kStageColumns = kStageBytes / (2 * kTileRows);
constexpr int kWarpBlocks = kStageColumns / kBlockColumns / kConsumerWarps;  // of a stage that a warp multiplies
constexpr int kMostSegmentVectors = 12;                                      // of x that a lane loads at once
constexpr int kMostManyVectors = 16;                                         // of more than 8 rows (tasks/linear.py)
constexpr int kMostGroupVectors = 20;                                        // of x and of the weights taken at once
constexpr int kMostEarlyVectors = kEarlyWeights ? 16 : 0;                    // of x and of weights taken before it
constexpr int kStageVectors = kWarpBlocks * kProducts;                       // of weights that a lane takes of a stage

template <int kN, int kK, int kTaskTiles, int kTiles, int kRows, bool kNorm, bool kBias, bool kResidual, bool kBest,
          Activation::Value kActivation, typename Out, int kTotalRows = 0, int kXPanel = 1, int kYPanel = 1>
struct Linear {
  enum Operand { kX, kWeight, kBiasVector, kNormWeight, kResidualRows, kRowCount, kY, kBestValue, kBestColumn };

  static constexpr int kPaddedK = round_up(kK, kBlockColumns);
  static constexpr unsigned kTileBytes = kPaddedK * kTileRows * 2;
  static constexpr int kTotalTiles = ceil_div(kN, kTileRows);
  static constexpr bool kGated = kActivation != Activation::kNone;
  static constexpr int kInputColumns = kK;
  static constexpr int kOutputColumns = kGated ? kN / 2 : kN;
  static constexpr int kBlockRows = kRows, kWeightRows = kTileRows;
  static constexpr int kHalves = ceil_div(kRows, 8);                 // products that share an A operand
  static constexpr int kStages = ceil_div(kPaddedK, kStageColumns);  // of a tile
  static constexpr int kXVectors = kStages * kWarpBlocks * kHalves;  // that a lane keeps from pass to pass, if whole
  static constexpr int kMostAtOnce = kHalves == 1 || kNorm ? kMostSegmentVectors : kMostManyVectors;
  static constexpr bool kWhole = kXVectors <= (kHalves == 1 ? kMostSegmentVectors : kMostManyVectors);
  static constexpr int kSegmentStages = kWhole ? kStages : even_share(kStages, kMostAtOnce / (kWarpBlocks * kHalves));
  static constexpr int kSegmentVectors = kSegmentStages * kWarpBlocks * kHalves;
  // Stages whose weights are in registers at once; an uneven last segment is walked stage by stage.
  static constexpr int kGroupStages =
      kStages % kSegmentStages
          ? 1
          : largest_divisor(kSegmentStages, max_of(kMostGroupVectors - kSegmentVectors, 8) / kStageVectors);
  // While a task waits for x, its first weights go to registers: of some tiles, or of some stages of the first.
  static constexpr int kMostEarlyGroups =
      max_of(kMostEarlyVectors - kSegmentVectors - (kNorm ? 4 : 0), 0) / (kGroupStages * kStageVectors);
  static constexpr int kEarlyStages = min_of(kSegmentStages / kGroupStages, kMostEarlyGroups) * kGroupStages;
  static constexpr int kEarlyTiles =
      kEarlyStages < kSegmentStages ? 1 : min_of(kTiles, kMostEarlyGroups* kGroupStages / kSegmentStages);
  static constexpr bool kEarly = kSegmentStages == kStages && kTaskTiles <= kTiles && kEarlyStages > 0;  // of one pass
  static constexpr bool kKept = kWhole && kTaskTiles > kTiles;  // loaded before the first pass
  static constexpr int kChains = kStageVectors / kHalves;       // of products that need not wait for each other
  static constexpr int kSquareChains = kHalves == 1 ? 4 : 1;    // the same of x with itself
  static constexpr int kTileColumns = kGated ? kTileRows / 2 : kTileRows;  // of y
  static constexpr int kTaskColumns = kTaskTiles * kTileColumns;
  static constexpr int kPairs = kTiles * kTileColumns / 2;       // a lane finishes two columns
  static constexpr int kPartialStride = kTiles * kTileRows + 4;  // so that a quad's stores meet in no bank
  static_assert(kRows <= 16, "Linear: two products hold 16 rows");

  struct Scratch {
    float partial[kConsumerWarps][8 * kHalves][kPartialStride];
    float squares[8 * kHalves][kConsumerWarps];
  };

  using End = Epilogue<Linear, kNorm, kBias, kResidual, kBest, kActivation, Out, kYPanel>;

  static __device__ __forceinline__ bool load(Loader& loader, const Task& task) {
    const int task_tiles = tiles_of(task);
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += kTiles) {
#pragma unroll 1
      for (int segment = 0; segment < kStages; segment += kSegmentStages) {
        if (!load_segment_stages(loader, task, begin, min(begin + kTiles, task_tiles), segment)) return false;
      }
    }
    return true;
  }

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps) {
    const int rows = context.rows_from(task.index[1] * kRows, capacity(task));
    const int task_tiles = tiles_of(task);
    End end(context, task, rows, capacity(task));
    context.wait(task);
    Segment x;
    if constexpr (kKept) load_first(context, task, rows, x);
#pragma unroll 1
    for (int begin = 0; begin < task_tiles; begin += kTiles) {
      run_pass(context, task, rows, begin, min(kTiles, task_tiles - begin), eps, x, end);
    }
    if constexpr (kBest) end.publish_best(context, task);
  }

 private:
  // A warp's columns of a segment of x, as B operands, and what is known of the squares of x's rows: the diagonals of
  // the products of x with itself.
  struct Segment {
    Vector16 x[kSegmentVectors];
    float squares[kHalves][2];

    __device__ __forceinline__ const Vector16& at(int stage, int block, int half) const {
      return x[(stage * kWarpBlocks + block) * kHalves + half];
    }
  };

  // Rows of the task's block: the last one has what is left of kTotalRows; 0 says that they are a multiple.
  static __device__ __forceinline__ int capacity(const Task& task) {
    return kTotalRows == 0 ? kRows : min(kRows, kTotalRows - task.index[1] * kRows);
  }

  static __device__ __forceinline__ int tiles_of(const Task& task) {
    return min(kTaskTiles, kTotalTiles - task.index[0] * kTaskTiles);
  }

  // Stages that are taken before x is there, and so before the weights of its norm.
  static __device__ __forceinline__ int early_stages(int tiles) {
    if (!kEarly) return 0;
    return kEarlyStages < kSegmentStages ? kEarlyStages : min(tiles, kEarlyTiles) * kSegmentStages;
  }

  // A segment's norm weights have a stage of their own; beyond the last column there may be anything, x is zero there.
  // One call fills all stages: the code of a fill stands where it is called.
  static __device__ __forceinline__ bool load_segment_stages(Loader& loader, const Task& task, int begin, int end,
                                                             int first_stage) {
    const char* weights = reinterpret_cast<const char*>(task.operand[kWeight]);
    const int first = first_stage * kStageColumns, stages = min(kSegmentStages, kStages - first_stage);
    const int norm_at = kNorm && (begin == 0 || !kWhole) ? early_stages(end - begin) : -1;
    const int count = (end - begin) * stages + (norm_at >= 0);
#pragma unroll 1
    for (int i = 0, tile = begin, stage = first_stage; i < count; ++i) {
      const char* source = weights + static_cast<size_t>(tile) * kTileBytes + stage * kStageBytes;
      unsigned bytes = min(kStageColumns, kPaddedK - stage * kStageColumns) * kTileRows * 2;
      if (kNorm && i == norm_at) {
        source = reinterpret_cast<const char*>(operand<const bf16>(task, kNormWeight) + first);
        bytes = 2 * min(kK - first, kSegmentStages * kStageColumns);
      } else if (++stage == first_stage + stages) {
        stage = first_stage;
        ++tile;
      }
      if (!loader.load_stage(source, bytes)) return false;
    }
    return true;
  }

  // First column of this lane from a stage on; its next block is kBlockDistance further.
  static __device__ __forceinline__ int lane_column(const Context& context, int first_stage) {
    return first_stage * kStageColumns + context.warp() * kBlockColumns + context.lane() % 4 * 8;
  }
  static constexpr int kBlockDistance = kConsumerWarps * kBlockColumns;

  // Where this lane's vector i of a segment lies: block i / kHalves, row lane / 4 + 8 * (i % kHalves).
  struct SegmentPlaces {
    const bf16* x;  // the lane's first row and column
    unsigned row_stride;
    int rows, columns;  // left from there

    static __device__ __forceinline__ int row(int i) { return i % kHalves * 8; }
    static __device__ __forceinline__ int column(int i) { return i / kHalves * kBlockDistance; }
    __device__ __forceinline__ bool wanted(int i) const { return row(i) < rows && column(i) < columns; }
    __device__ __forceinline__ const Vector16* at(int i) const {
      return reinterpret_cast<const Vector16*>(x + element_offset<kXPanel>(row(i), column(i), row_stride));
    }
  };

  static __device__ __forceinline__ void load_segment(Context& context, const Task& task, int rows, int first_stage,
                                                      Segment& segment) {
    const int row = context.lane() / 4, column = lane_column(context, first_stage);
    const bf16* x = context.current<const bf16>(task, kX) + element_offset<kXPanel>(row, column, task.row_stride[kX]);
    const SegmentPlaces places{x, task.row_stride[kX], rows - row, kK - column};
    const char* norm = kNorm ? context.acquire_stage() + 2 * lane_column(context, 0) : nullptr;  // sooner there than x
    context.load(task, kX, segment.x, places);
    if constexpr (kNorm) context.release_stages(scale(norm, kK - column, segment));
  }

  // The first segment of a task.
  static __device__ __forceinline__ void load_first(Context& context, const Task& task, int rows, Segment& x) {
    clear(x.squares);
    load_segment(context, task, rows, 0, x);
    context.stamp(ProfilePhase::kReady);
  }

  // Adds the squares of x, then multiplies it by the norm's weights, of which only `columns` mean anything. Returns
  // what needs all of these.
  static __device__ __forceinline__ unsigned scale(const char* norm, int columns, Segment& segment) {
    float squares[kSquareChains][kHalves][4] = {};
    unsigned used = 0;
#pragma unroll
    for (int i = 0; i < kSegmentStages * kWarpBlocks; ++i) {
      const bool inside = kK % kStageColumns == 0 || i * kBlockDistance < columns;
      const Vector16 weight = inside ? load_vector(norm + 2 * i * kBlockDistance) : Vector16{};
      used ^= weight.word[0];
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        unsigned (&x)[4] = segment.x[i * kHalves + h].word;
#pragma unroll
        for (int p = 0; p < kProducts; ++p) {
          float (&sums)[4] = squares[(i * kProducts + p) % kSquareChains][h];
          mma_m16n8k16(sums, x[2 * p], 0, x[2 * p + 1], 0, x[2 * p], x[2 * p + 1]);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) x[j] = multiply_bf16x2(x[j], weight.word[j]);
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * kSquareChains * kHalves; ++i) {
      segment.squares[i / 2 % kHalves][i % 2] += squares[i / 2 / kHalves][i / 2 % kHalves][i % 2];
    }
    return used;
  }

  static __device__ __forceinline__ void run_pass(Context& context, const Task& task, int rows, int begin, int tiles,
                                                  float eps, Segment& x, End& end) {
    Scratch& scratch = context.next_scratch<Scratch>();
    end.begin_load(context, task, begin, tiles);
    if constexpr (kWhole) {
      if constexpr (kEarly) run_early(context, scratch, task, rows, tiles, x);
      if constexpr (!kEarly && !kKept) load_first(context, task, rows, x);
      multiply(context, scratch, x, 0, rows, kEarly ? kEarlyTiles : 0, tiles);
    } else {
      clear(x.squares);
#pragma unroll 1
      for (int stage = 0; stage < kStages; stage += kSegmentStages) {
        load_segment(context, task, rows, stage, x);
        if (begin == 0 && stage == 0) context.stamp(ProfilePhase::kReady);
        multiply(context, scratch, x, stage, rows, 0, tiles);
      }
    }
    if (kNorm && begin == 0) store_squares(context, scratch, x);
    end.end_load(context, task, begin, tiles);
    context.sync();
    end.finish(context, task, scratch, begin, tiles, eps);
  }

  static __device__ __forceinline__ void clear(float (&squares)[kHalves][2]) {
#pragma unroll
    for (int h = 0; h < kHalves; ++h) squares[h][0] = squares[h][1] = 0.0f;
  }

  using Sums = float[kChains][kHalves][4];
  using Group = Vector16[kGroupStages][kStageVectors];

  // The first tiles of a task, whose weights are taken before x is waited for.
  static __device__ __forceinline__ void run_early(Context& context, Scratch& scratch, const Task& task, int rows,
                                                   int tiles, Segment& x) {
    constexpr int kGroups = kEarlyStages / kGroupStages;
    Group early[max_of(kEarlyTiles * kGroups, 1)];
#pragma unroll
    for (int t = 0; t < kEarlyTiles; ++t) {
      if (t >= tiles) break;
#pragma unroll
      for (int g = 0; g < kGroups; ++g) take_group(context, g * kGroupStages, early[t * kGroups + g]);
    }
    load_first(context, task, rows, x);
#pragma unroll
    for (int t = 0; t < kEarlyTiles; ++t) {
      if (t >= tiles) break;
      Sums sums = {};
#pragma unroll
      for (int g = 0; g < kGroups; ++g) multiply_group(x, g * kGroupStages, early[t * kGroups + g], sums);
      multiply_stages(context, x, 0, kEarlyStages, sums);
      end_tile(context, scratch, rows, t, sums);
    }
  }

  // Multiplies tiles `begin` .. `end` of a pass by a segment of x.
  static __device__ __forceinline__ void multiply(Context& context, Scratch& scratch, const Segment& x, int first_stage,
                                                  int rows, int begin, int end) {
#pragma unroll 1
    for (int t = begin; t < end; ++t) {
      Sums sums = {};
      if (!kWhole && first_stage > 0) {
        visit_partial(context, scratch, rows, t, sums[0], [](float& sum, float& partial) { sum += partial; });
      }
      multiply_stages(context, x, first_stage, 0, sums);
      end_tile(context, scratch, rows, t, sums);
    }
  }

  // The stages of a segment from its stage `begin` on.
  static __device__ __forceinline__ void multiply_stages(Context& context, const Segment& x, int first_stage, int begin,
                                                         Sums& sums) {
#pragma unroll
    for (int s = begin; s < kSegmentStages; s += kGroupStages) {
      if (kStages % kSegmentStages && first_stage + s >= kStages) break;
      Group weights;
      take_group(context, first_stage + s, weights);
      multiply_group(x, s, weights, sums);
    }
  }

  // Adds the chains in a fixed order.
  static __device__ __forceinline__ void end_tile(Context& context, Scratch& scratch, int rows, int tile, Sums& sums) {
#pragma unroll
    for (int c = 1; c < kChains; ++c) {
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[0][h][j] += sums[c][h][j];
      }
    }
    visit_partial(context, scratch, rows, tile, sums[0], [](float& sum, float& partial) { partial = sum; });
  }

  // The next stages' weights, to registers, from the tile's `stage` on.
  static __device__ __forceinline__ void take_group(Context& context, int stage, Group& weights) {
    const char* stages[kGroupStages];
    context.acquire_stages(stages);
#pragma unroll
    for (int g = 0; g < kGroupStages; ++g) load_weights(context, stages[g], stage + g, weights[g]);
    unsigned used = 0;
#pragma unroll
    for (int i = 0; i < kGroupStages * kStageVectors; ++i)
      used ^= weights[i / kStageVectors][i % kStageVectors].word[0];
    context.release_stages(used, kGroupStages);
  }

  static __device__ __forceinline__ void multiply_group(const Segment& x, int s, const Group& weights, Sums& sums) {
#pragma unroll
    for (int g = 0; g < kGroupStages; ++g) multiply_stage(x, s + g, weights[g], sums);
  }

  static __device__ __forceinline__ void load_weights(const Context& context, const char* bytes, int stage,
                                                      Vector16 (&weights)[kStageVectors]) {
    const int blocks = (kPaddedK - stage * kStageColumns) / kBlockColumns;
#pragma unroll
    for (int i = 0; i < kStageVectors; ++i) {
      const int block = context.warp() + i / kProducts * kConsumerWarps;
      const bool inside = kPaddedK % kStageColumns == 0 || block < blocks;
      const char* product = bytes + (block * kProducts + i % kProducts) * kProductBytes;
      weights[i] = inside ? load_vector(product + context.lane() * 16) : Vector16{};
    }
  }

  static __device__ __forceinline__ void multiply_stage(const Segment& x, int stage,
                                                        const Vector16 (&weights)[kStageVectors],
                                                        float (&sums)[kChains][kHalves][4]) {
#pragma unroll
    for (int i = 0; i < kStageVectors; ++i) {
      const unsigned (&w)[4] = weights[i].word;
      const int p = i % kProducts;
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const unsigned (&b)[4] = x.at(stage, i / kProducts, h).word;
        mma_m16n8k16(sums[i % kChains][h], w[0], w[1], w[2], w[3], b[2 * p], b[2 * p + 1]);
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

  static __device__ __forceinline__ void store_squares(const Context& context, Scratch& scratch, const Segment& x) {
    const int row = context.lane() / 4;
    if (context.lane() % 4 != row / 2) return;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      scratch.squares[row + 8 * h][context.warp()] = row % 2 ? x.squares[h][1] : x.squares[h][0];
    }
  }
};

}  // namespace mpk
