// Causal attention of a block of rows over a paged cache that holds their keys and values already, on tensor cores.
//
// A warp takes 16 rows of a query head; all warps' heads share a KV head. Keys and values of some positions go to one
// half of scratch while those before them are used in the other; the maxima and sums are those of online softmax. The
// rows of one request follow each other, and see its positions alone: requests are taken in turn.
#pragma once

#include "mpk/blocks.cuh"
#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeads, int kKvHeads, int kHeadDim, int kPageSize, int kBatch, int kTaskHeads, int kTotalRows,
          int kWindow, bool kCapped>
struct PromptAttention {
  enum Operand { kQ, kKCache, kVCache, kRequests, kPageTable, kRowCount, kOut };

  static constexpr int kWarpRows = 16;
  static constexpr int kHeadWarps = kConsumerWarps / kTaskHeads;
  static constexpr int kRows = kHeadWarps * kWarpRows;
  static constexpr int kRowBlocks = ceil_div(kTotalRows, kRows);
  static constexpr int kPositions = min_of(64, 4096 / kHeadDim);  // at once
  static constexpr int kParts = kHeadDim / 16;
  static constexpr int kChunks = kHeadDim / 8;  // of 16 bytes
  static constexpr int kPositionBytes = 2 * kHeadDim;
  static constexpr int kKeyBytes = kPositions * kPositionBytes;  // at once; values have as many
  static constexpr float kLog2E = 1.4426950408889634f;
  static_assert(2 * kKeyBytes <= kScratchBytes, "scratch planned too small");
  static_assert(kHeadDim % kHalfColumns == 0, "PromptAttention: a head is whole halves of blocks");

  static __device__ __forceinline__ void run(Context& context, const Task& task, float scale, float softcap) {
    context.thread = opaque(context.thread);
    const int first = first_row(task), rows = context.rows_from(first, kRows);
    context.wait(task);
    if (rows == 0) return;
    Queries queries;
    load_queries(context, task, rows, queries);
    State state;
    clear(state);
    const Scores scores{scale * kLog2E, softcap * kLog2E};
    for (int b = 0; b < kBatch; ++b) {
      const Range range = range_of(task, b, first, rows);
      if (range.count > 0) attend(context, task, b, range, scores, queries, state);
    }
    write(context, task, first, rows, state);
    fence_proxy_async_global();  // the copy engine will read it
    context.sync();              // whoever takes scratch next finds it left
  }

 private:
  using Queries = unsigned[kParts][4];  // A operands

  // Of a lane: rows g and g + 8 of the warp's.
  struct State {
    float highest[2], total[2];
    float sum[kHeadDim / 8][4];
  };

  // In powers of two.
  struct Scores {
    float scale, cap;
  };

  // Rows of a request in the block, and its positions there: that of the first, and what they see, before `end`.
  struct Range {
    int first, count, position, begin, end;
  };

  static __device__ __forceinline__ int first_row(const Task& task) { return (kRowBlocks - 1 - task.index[0]) * kRows; }

  // Rows of the block, from 0 on.
  static __device__ __forceinline__ Range range_of(const Task& task, int b, int first, int rows) {
    const int* request = operand<const int>(task, kRequests) + b * RequestColumn::kCount;
    const int begin = request[RequestColumn::kFirstRow] - first;
    Range range;
    range.first = max(begin, 0);
    range.count = min(begin + request[RequestColumn::kNumRows], rows) - range.first;
    range.position = request[RequestColumn::kCached] + range.first - begin;
    range.end = range.position + range.count;
    range.begin = kWindow > 0 ? max(range.position + 1 - kWindow, 0) / kPositions * kPositions : 0;
    return range;
  }

  static __device__ __forceinline__ char* keys(int half) { return scratch_half(half); }
  static __device__ __forceinline__ char* values(int half) { return scratch_half(half) + kKeyBytes; }

  // Chunks of neighbouring rows lie in other banks.
  static __device__ __forceinline__ char* chunk_at(char* rows, int row, int chunk) {
    constexpr int kLineRows = max_of(8 / kChunks, 1), kMask = min_of(kChunks, 8) - 1;
    return rows + row * kPositionBytes + (chunk ^ (row / kLineRows & kMask)) * 16;
  }

  // First row of the warp, and its head of the task's.
  static __device__ __forceinline__ int warp_row(const Context& context) {
    return context.warp() % kHeadWarps * kWarpRows;
  }
  static __device__ __forceinline__ int warp_head(const Context& context) { return context.warp() / kHeadWarps; }

  // Through shared memory, where keys and values come later.
  static __device__ __forceinline__ void load_queries(const Context& context, const Task& task, int rows,
                                                      Queries& queries) {
    static_assert(kConsumerWarps * kWarpRows * kPositionBytes <= 2 * kScratchBytes, "scratch planned too small");
    char* mine = scratch_half(0) + context.warp() * kWarpRows * kPositionBytes;
    const int lane = context.lane();
#pragma unroll
    for (int i = lane; i < kWarpRows * kChunks; i += 32) {
      const int row = min(warp_row(context) + i / kChunks, rows - 1);
      const bf16* q = operand<const bf16>(task, kQ) + static_cast<size_t>(row) * task.row_stride[kQ] +
                      warp_head(context) * kHeadDim + i % kChunks * 8;
      *reinterpret_cast<Vector16*>(chunk_at(mine, i / kChunks, i % kChunks)) = load_vector(q);
    }
    __syncwarp();
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      load_matrices(queries[part], chunk_at(mine, lane % kWarpRows, 2 * part + lane / kWarpRows));
    }
    context.sync();
  }

  static __device__ __forceinline__ void clear(State& state) {
#pragma unroll
    for (int i = 0; i < 2; ++i) state.highest[i] = kNegativeInfinity, state.total[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) state.sum[i / 4][i % 4] = 0.0f;
  }

  static __device__ __forceinline__ void attend(const Context& context, const Task& task, int b, const Range& range,
                                                Scores scores, const Queries& queries, State& state) {
    // what the lane's rows see: positions above `hidden`, up to `latest`
    int latest[2], hidden[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = warp_row(context) + context.lane() / 4 + 8 * i - range.first;
      latest[i] = row >= 0 && row < range.count ? range.position + row : -1;
      hidden[i] = kWindow > 0 ? latest[i] - kWindow : -1;
    }
    const int begin_row = max(warp_row(context) - range.first, 0);  // of the request's rows, those of the warp
    const int end_row = min(warp_row(context) + kWarpRows - range.first, range.count);
    const int end = begin_row < end_row ? range.position + end_row : 0;  // of what they see
    int half = 0;
    begin_copy(context, task, b, half, range.begin, range.end);
#pragma unroll 1
    for (int p = range.begin; p < range.end; p += kPositions, half ^= 1) {
      async_copy_wait<0>();
      context.sync();  // these are there, and those before them used
      if (p + kPositions < range.end) begin_copy(context, task, b, half ^ 1, p + kPositions, range.end);
      if (p >= end) continue;
      float score[kPositions / 8][4];
      weigh(context, p, half, latest, hidden, scores, queries, state, score);
      add_values(context, half, score, state);
    }
    context.sync();
  }

  // Positions from `first` on to shared memory; behind the last one, that one again: no garbage is multiplied.
  static __device__ __forceinline__ void begin_copy(const Context& context, const Task& task, int b, int half,
                                                    int first, int end) {
    const int* pages = operand<const int>(task, kPageTable) + b * task.row_stride[kPageTable];
#pragma unroll
    for (int i = opaque(context.thread); i < kPositions * kChunks; i += kConsumers) {
      const int position = min(first + i / kChunks, end - 1);
      const size_t page = static_cast<size_t>(pages[position / kPageSize]) * kKvHeads * kPageSize;
      const size_t offset = (page + position % kPageSize) * kHeadDim + i % kChunks * 8;
      async_copy_16(chunk_at(keys(half), i / kChunks, i % kChunks), operand<const bf16>(task, kKCache) + offset);
      async_copy_16(chunk_at(values(half), i / kChunks, i % kChunks), operand<const bf16>(task, kVCache) + offset);
    }
    async_copy_commit();
  }

  // score: weights of the positions from `p` on, relative to the new maxima; sums are made relative to them.
  static __device__ __forceinline__ void weigh(const Context& context, int p, int half, const int (&latest)[2],
                                               const int (&hidden)[2], Scores scores, const Queries& queries,
                                               State& state, float (&score)[kPositions / 8][4]) {
    multiply_keys(context, half, queries, score);
    if (needs_mask(p, latest, hidden)) {
      weigh_masked<true>(context, p, latest, hidden, scores, state, score);
    } else {
      weigh_masked<false>(context, p, latest, hidden, scores, state, score);
    }
  }

  // Whether a row of the warp does not see all positions from `p` on.
  static __device__ __forceinline__ bool needs_mask(int p, const int (&latest)[2], const int (&hidden)[2]) {
    const bool all = p + kPositions - 1 <= min(latest[0], latest[1]) && p > max(hidden[0], hidden[1]);
    return !__all_sync(0xFFFFFFFFu, all);
  }

  template <bool kMasked>
  static __device__ __forceinline__ void weigh_masked(const Context& context, int p, const int (&latest)[2],
                                                      const int (&hidden)[2], Scores scores, State& state,
                                                      float (&score)[kPositions / 8][4]) {
    float highest[2] = {state.highest[0], state.highest[1]};
#pragma unroll
    for (int t = 0; t < kPositions / 8; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int position = p + 8 * t + context.lane() % 4 * 2 + j % 2;
        const bool seen = !kMasked || (position <= latest[j / 2] && position > hidden[j / 2]);
        score[t][j] = seen ? capped(score[t][j] * scores.scale, scores.cap) : 2.0f * kNegativeInfinity;
        highest[j / 2] = fmaxf(highest[j / 2], score[t][j]);
      }
    }
    raise_highest(highest, state);
#pragma unroll
    for (int t = 0; t < kPositions / 8; ++t) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        score[t][j] = exp2_approximate(score[t][j] - highest[j / 2]);
        state.total[j / 2] += score[t][j];
      }
    }
  }

  // The quad's highest of each row; what was summed becomes relative to it. Most often no row of a warp has a new one.
  static __device__ __forceinline__ void raise_highest(float (&highest)[2], State& state) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(0xFFFFFFFFu, highest[i], 1));
      highest[i] = fmaxf(highest[i], __shfl_xor_sync(0xFFFFFFFFu, highest[i], 2));
    }
    const bool same = highest[0] == state.highest[0] && highest[1] == state.highest[1];
    if (__all_sync(0xFFFFFFFFu, same)) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor = exp2_approximate(state.highest[i] - highest[i]);
      state.highest[i] = highest[i];
      state.total[i] *= factor;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; ++n) state.sum[n][2 * i] *= factor, state.sum[n][2 * i + 1] *= factor;
    }
  }

  static __device__ __forceinline__ float capped(float score, float cap) {
    return kCapped ? cap * tanhf(score / cap) : score;
  }

  static __device__ __forceinline__ void multiply_keys(const Context& context, int half, const Queries& queries,
                                                       float (&score)[kPositions / 8][4]) {
    const int lane = opaque(context.lane()), row = lane / 16 * 8 + lane % 8, chunk = lane / 8 % 2;
#pragma unroll
    for (int i = 0; i < kPositions / 2; ++i) score[i / 4][i % 4] = 0.0f;
#pragma unroll
    for (int part = 0; part < kParts; ++part) {  // outside: sums that do not wait for each other
      const unsigned (&q)[4] = queries[part];
#pragma unroll
      for (int t = 0; t < kPositions / 8; t += 2) {
        unsigned k[4];  // of two products
        load_matrices(k, chunk_at(keys(half), 8 * t + row, 2 * part + chunk));
        mma_m16n8k16(score[t], q[0], q[1], q[2], q[3], k[0], k[1]);
        mma_m16n8k16(score[t + 1], q[0], q[1], q[2], q[3], k[2], k[3]);
      }
    }
  }

  static __device__ __forceinline__ void add_values(const Context& context, int half,
                                                    const float (&weight)[kPositions / 8][4], State& state) {
    const int lane = opaque(context.lane()), row = lane % 16, chunk = lane / 16;
#pragma unroll
    for (int t = 0; t < kPositions / 8; t += 2) {
      const unsigned a[4] = {pack_bf16(weight[t][0], weight[t][1]), pack_bf16(weight[t][2], weight[t][3]),
                             pack_bf16(weight[t + 1][0], weight[t + 1][1]),
                             pack_bf16(weight[t + 1][2], weight[t + 1][3])};
#pragma unroll
      for (int n = 0; n < kChunks; n += 2) {
        unsigned v[4];
        load_matrices_transposed(v, chunk_at(values(half), 8 * t + row, n + chunk));
        mma_m16n8k16(state.sum[n], a[0], a[1], a[2], a[3], v[0], v[1]);
        mma_m16n8k16(state.sum[n + 1], a[0], a[1], a[2], a[3], v[2], v[3]);
      }
    }
  }

  // A lane's words of four neighbouring octets are a chunk of the output's layout.
  static __device__ __forceinline__ void write(const Context& context, const Task& task, int first, int rows,
                                               const State& state) {
    const int first_column = task.index[1] * kTaskHeads * kHeadDim + warp_head(context) * kHeadDim;
    const int first_block = task.index[1] * kTaskHeads * kHeadDim / kColumnsOfBlock;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float factor = 1.0f / sum_over_quad(state.total[i]);
      const int row = warp_row(context) + context.lane() / 4 + 8 * i;
      if (row >= rows) continue;
#pragma unroll
      for (int n = 0; n < kHeadDim / 8; n += 4) {
        const int column = first_column + 8 * n;
        Vector16 chunk;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float (&sum)[4] = state.sum[n + j];
          chunk.word[j] = pack_bf16(sum[2 * i] * factor, sum[2 * i + 1] * factor);
        }
        char* y = block_row(operand<char>(task, kOut), round_up(kTotalRows, kRowsOfStage),
                            column / kColumnsOfBlock - first_block, row);
        const int offset = chunk_offset(first + row, column / kHalfColumns % 2, context.lane() % 4);
        *reinterpret_cast<Vector16*>(y + offset) = chunk;
      }
    }
  }
};

}  // namespace mpk
