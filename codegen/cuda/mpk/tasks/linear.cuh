// y = activation(norm(x) W^T + bias) + residual for some 16-row tiles of W, on tensor cores at any row count.
//
// W streams through the ring in stages of 16 rows by 512 columns, packed so that lane (r, q) of a warp finds rows r and
// r + 8, columns 8q..8q+7 of a 32-column block in two 16-byte words. The order of columns inside a product does not
// matter as long as both sides agree, so x needs no packing: its lane reads columns 8q..8q+7 of row r by one load.
// The 8 warps share K; their partial sums meet in shared memory and are added in order of warps.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

namespace Activation {
enum Value : int { kNone, kSiluMul, kGeluMul };
}

constexpr int kTileRows = 16;
constexpr int kBlockColumns = 32;
constexpr int kStageColumns = kStageBytes / (2 * kTileRows);

template <int kN, int kK, int kTiles, int kRows, bool kNorm, bool kBias, bool kResidual, Activation::Value kActivation,
          typename Out>
struct Linear {
  enum Operand { kX, kWeight, kBiasVector, kNormWeight, kResidualRows, kRowCount, kY };

  static constexpr int kPaddedK = round_up(kK, kBlockColumns);
  static constexpr unsigned kTileBytes = kPaddedK * kTileRows * 2;
  static constexpr int kTotalTiles = ceil_div(kN, kTileRows);
  static constexpr int kOutputColumns = kActivation == Activation::kNone ? kN : kN / 2;
  static constexpr int kRowGroups = ceil_div(kRows, 8);
  static constexpr int kChunks = ceil_div(kPaddedK, kStageColumns);
  static constexpr bool kGated = kActivation != Activation::kNone;
  // Rows of x in shared memory start 64 bytes apart modulo 128, so that eight rows' loads meet in no bank.
  static __host__ __device__ constexpr int stride_of(int columns) { return round_up(columns, 64) + 32; }
  // All of x if it fits, else panels of some chunks; a panel then serves all tiles before the next one is read.
  static constexpr bool kOnePanel = kRows * stride_of(kPaddedK) * 2 <= kPanelBytes;
  static constexpr int kGroup = kOnePanel ? 1 : kTiles;
  static constexpr int kColumns = kGated ? 8 : kTileRows;                  // of y that a tile makes
  static constexpr int kOutputs = ceil_div(kRows * kColumns, kConsumers);  // of a thread in a tile
  static constexpr int kInFlight = kRows > 8 ? 8 : 4;                      // vectors of a lane between load and use

  struct Scratch {
    alignas(16) char panel[kOnePanel ? kRows * stride_of(kPaddedK) * 2 : kPanelBytes];
    float partial[2][kConsumerWarps][kRowGroups * 8][kTileRows];
    float squares[kRowGroups * 8][kConsumerWarps];
  };
  static_assert(sizeof(Scratch) <= kScratchBytes, "Linear: scratch planned too small");

  static __device__ bool load(Loader& loader, const Task& task) {
    const int tiles = min(kTiles, kTotalTiles - __ldg(&task.index[0]) * kTiles);
    const char* first = reinterpret_cast<const char*>(__ldg(&task.operand[kWeight]));
    for (int group = 0; group < tiles; group += kGroup) {
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int columns = min(kStageColumns, kPaddedK - chunk * kStageColumns);
        for (int t = group; t < min(group + kGroup, tiles); ++t) {
          const char* source = first + static_cast<size_t>(t) * kTileBytes + chunk * kStageBytes;
          if (!loader.load_stage(source, columns * kTileRows * 2)) return false;
        }
      }
    }
    return true;
  }

  static __device__ void run(Context& context, const Task& task, float eps) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(context.scratch);
    const int tiles = min(kTiles, kTotalTiles - task.index[0] * kTiles);
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;  // written at the end of the step before: no wait needed
    if (!context.wait(task)) return;
    const int chunks_a_panel = panel_chunks(rows);
    const bool keep = (task.flags & TaskFlag::kKeepActivation) && chunks_a_panel >= kChunks;
    int buffer = 0;
    for (int group = 0; group < tiles; group += kGroup) {
      float sums[kGroup][kRowGroups][4] = {};
      float residuals[kGroup][kOutputs] = {};
      if constexpr (kResidual) load_residuals(context, task, rows, group, tiles, residuals);
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        if (chunk % chunks_a_panel == 0 && !(keep && group == 0) && (group == 0 || chunks_a_panel < kChunks)) {
          load_panel(context, scratch, task, rows, chunk, min(chunks_a_panel, kChunks - chunk));
        }
        multiply_chunk(context, scratch, rows, chunk, chunks_a_panel, min(kGroup, tiles - group), sums);
      }
#pragma unroll
      for (int t = 0; t < kGroup; ++t) {
        if (group + t >= tiles) break;
        finish_tile(context, scratch, task, rows, group + t, sums[t], residuals[t], buffer, eps);
        buffer ^= 1;
      }
    }
  }

 private:
  static __device__ int panel_chunks(int rows) {
    if constexpr (kOnePanel) return kChunks;
    const int fitting = (kPanelBytes / 2 / max(rows, 1) - 32) / kStageColumns;
    return max(1, min(fitting, kChunks));
  }

  static __device__ int panel_stride(int chunks_a_panel) {
    return stride_of(min(kPaddedK, chunks_a_panel * kStageColumns));
  }

  // Warps that share a row of x: all eight for one row, one each from five rows on.
  static __device__ __forceinline__ int warps_a_row(int rows) {
    return rows == 1 ? kConsumerWarps : rows == 2 ? kConsumerWarps / 2 : rows <= 4 ? kConsumerWarps / 4 : 1;
  }

  // Copies columns of the active rows to shared memory; with a norm, times its weight, and sums the squares.
  static __device__ void load_panel(Context& context, Scratch& scratch, const Task& task, int rows, int chunk,
                                    int chunks) {
    const int first = chunk * kStageColumns;
    const int columns = min(chunks * kStageColumns, kPaddedK - first);
    const int stride = panel_stride(kOnePanel ? kChunks : panel_chunks(rows));
    if (chunk > 0) context.sync();  // the panel before is read to its end
    const int sharing = warps_a_row(rows);
    const int part = context.warp() % sharing;
    for (int row = context.warp() / sharing; row < rows; row += kConsumerWarps / sharing) {
      const bf16* x = operand<const bf16>(task, kX) + static_cast<size_t>(row) * task.row_stride[kX] + first;
      bf16* panel = reinterpret_cast<bf16*>(scratch.panel) + row * stride;
      float squares = 0.0f;
      for (int base = 8 * 32 * part; base < columns; base += 8 * 32 * sharing * kInFlight) {
        load_vectors(context, task, x, panel, first, base + 8 * context.lane(), columns, 8 * 32 * sharing, squares);
      }
      if constexpr (kNorm) {
        squares = sum_over_lanes(squares);
        float& total = scratch.squares[row][part];
        if (context.lane() == 0) total = chunk == 0 ? squares : total + squares;
      }
    }
    context.sync();
  }

  // kInFlight vectors of one row, all loads issued before the first use.
  static __device__ __forceinline__ void load_vectors(Context& context, const Task& task, const bf16* x, bf16* panel,
                                                      int first, int column, int columns, int step, float& squares) {
    Vector16 values[kInFlight] = {}, weights[kNorm ? kInFlight : 1] = {};
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int c = column + i * step;
      if (c >= columns || first + c >= kK) continue;
      values[i] = load_vector(x + c);
      if constexpr (kNorm) weights[i] = load_vector(operand<const bf16>(task, kNormWeight) + first + c);
    }
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int c = column + i * step;
      if (c >= columns) continue;
      if constexpr (kNorm) scale_by(values[i], weights[i], squares);
      *reinterpret_cast<Vector16*>(panel + c) = values[i];
    }
  }

  static __device__ __forceinline__ void scale_by(Vector16& values, const Vector16& weights, float& squares) {
    float value[8], weight[8];
    unpack(values, value);
    unpack(weights, weight);
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += value[i] * value[i];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values.word[i] = pack_bf16(value[2 * i] * weight[2 * i], value[2 * i + 1] * weight[2 * i + 1]);
    }
  }

  static __device__ __forceinline__ void multiply_chunk(Context& context, const Scratch& scratch, int rows, int chunk,
                                                        int chunks_a_panel, int tiles,
                                                        float (&sums)[kGroup][kRowGroups][4]) {
    const int lane = context.lane(), row = lane / 4, quad = lane % 4;
    const int blocks = min(kStageColumns, kPaddedK - chunk * kStageColumns) / kBlockColumns;
    const int stride = panel_stride(chunks_a_panel);
    const bf16* panel = reinterpret_cast<const bf16*>(scratch.panel);
    const bf16* x = panel + row * stride + (chunk % chunks_a_panel) * kStageColumns + 8 * quad;
#pragma unroll
    for (int t = 0; t < kGroup; ++t) {
      if (t >= tiles) break;
      const char* stage = context.acquire_stage();
#pragma unroll
      for (int i = 0; i < kStageColumns / kBlockColumns / kConsumerWarps; ++i) {
        const int block = context.warp() + i * kConsumerWarps;
        if (block >= blocks) break;
        const Vector16 upper = load_vector(stage + block * 1024 + lane * 16);
        const Vector16 lower = load_vector(stage + block * 1024 + 512 + lane * 16);
#pragma unroll
        for (int g = 0; g < kRowGroups; ++g) {
          if (g > 0 && 8 * g >= rows) break;
          Vector16 b = {};
          if (8 * g + row < rows) b = load_vector(x + 8 * g * stride + block * kBlockColumns);
          mma_m16n8k16(sums[t][g], upper.word[0], lower.word[0], upper.word[1], lower.word[1], b.word[0], b.word[1]);
          mma_m16n8k16(sums[t][g], upper.word[2], lower.word[2], upper.word[3], lower.word[3], b.word[2], b.word[3]);
        }
      }
      context.release_stage();
    }
  }

  // What the thread will add to its outputs, fetched while the products run.
  static __device__ __forceinline__ void load_residuals(Context& context, const Task& task, int rows, int group,
                                                        int tiles, float (&residuals)[kGroup][kOutputs]) {
    const bf16* residual = operand<const bf16>(task, kResidualRows);
#pragma unroll
    for (int t = 0; t < kGroup; ++t) {
#pragma unroll
      for (int j = 0; j < kOutputs; ++j) {
        const int i = context.thread + j * kConsumers, row = i / kColumns;
        const int column = (group + t) * kColumns + i % kColumns;
        if (row >= rows || group + t >= tiles || task.index[0] * kTiles * kColumns + column >= kOutputColumns) continue;
        residuals[t][j] = to_float(residual[static_cast<size_t>(row) * task.row_stride[kResidualRows] + column]);
      }
    }
  }

  // Adds the warps' partial sums and writes one tile of y.
  static __device__ void finish_tile(Context& context, Scratch& scratch, const Task& task, int rows, int tile,
                                     const float (&sums)[kRowGroups][4], const float (&residuals)[kOutputs], int buffer,
                                     float eps) {
    const int lane = context.lane();
    auto& partial = scratch.partial[buffer];
#pragma unroll
    for (int g = 0; g < kRowGroups; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[context.warp()][8 * g + lane % 4 * 2 + i % 2][lane / 4 + i / 2 * 8] = sums[g][i];
      }
    }
    context.sync();
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
      const int i = context.thread + j * kConsumers, row = i / kColumns, column = i % kColumns;
      if (row >= rows) continue;
      const int output = tile * kColumns + column;  // relative to the task's first column of y
      const int weight_row = task.index[0] * kTiles * kTileRows + tile * kTileRows + column;
      if (weight_row >= kN) continue;
      const float scale = kNorm ? norm_scale(scratch, row, warps_a_row(rows), eps) : 1.0f;
      float value = finish(scratch, task, buffer, row, tile * kTileRows + column, column, scale);
      if constexpr (kGated) {
        const float up = finish(scratch, task, buffer, row, tile * kTileRows + column + 8, column + 8, scale);
        value = (kActivation == Activation::kSiluMul ? silu(value) : gelu_tanh(value)) * up;
      }
      if constexpr (kResidual) value += residuals[j];
      operand<Out>(task, kY)[static_cast<size_t>(row) * task.row_stride[kY] + output] = from_float<Out>(value);
    }
  }

  static __device__ __forceinline__ float norm_scale(const Scratch& scratch, int row, int parts, float eps) {
    float squares = 0.0f;
    for (int part = 0; part < parts; ++part) squares += scratch.squares[row][part];
    return rsqrtf(squares / kK + eps);
  }

  static __device__ __forceinline__ float finish(const Scratch& scratch, const Task& task, int buffer, int row,
                                                 int weight_row, int column, float scale) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kConsumerWarps; ++w) sum += scratch.partial[buffer][w][row][column];
    sum *= scale;
    if constexpr (kBias) sum += to_float(operand<const bf16>(task, kBiasVector)[weight_row]);
    return sum;
  }
};

}  // namespace mpk
