// Attention of one request's rows over one KV head and one split of the positions, on CUDA cores.
//
// kHeadDim / 8 lanes hold a position's key, 8 elements each; the warps' lane groups take positions in turn, each with
// its own running maximum and sum (online softmax), and are merged in a fixed order at the end.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeads, int kKvHeads, int kHeadDim, int kPageSize, int kSplits, bool kAppend, bool kNorm, bool kRotary>
struct Attention {
  enum Operand { kQ, kK, kV, kKCache, kVCache, kRequests, kPageTable, kQNorm, kKNorm, kInvFreq, kOut, kMaxSum };

  static constexpr int kGroup = kHeads / kKvHeads;
  static constexpr int kSplitBlock = 16;
  static constexpr int kLanes = kHeadDim / 8;   // that hold one position
  static constexpr int kPerWarp = 32 / kLanes;  // positions a warp takes at once
  static constexpr int kStride = kPerWarp * kConsumerWarps;
  static __host__ __device__ constexpr int heads_per_pass() {  // query heads whose state fits in registers
    int heads = min_of(kGroup, 8);
    while (kGroup % heads) --heads;
    return heads;
  }
  static constexpr int kPass = heads_per_pass();
  static constexpr int kRound = kPass <= 4 ? 4 : 2;  // positions of a lane group in flight
  static constexpr float kLog2E = 1.4426950408889634f;
  static_assert(kHeads % kKvHeads == 0, "Attention: query heads must divide evenly among KV heads");
  static_assert(kLanes >= 2 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0, "Attention: head size must be 16..256");

  struct Scratch {
    float q[kGroup][kHeadDim];
    float sum[kConsumerWarps][kPass][kHeadDim];
    float highest[kConsumerWarps][kPass];
    float total[kConsumerWarps][kPass];
  };
  static_assert(sizeof(Scratch) <= kScratchBytes, "Attention: scratch planned too small");

  struct State {
    float highest[kPass], total[kPass], sum[kPass][8];
  };

  static __device__ void run(Context& context, const Task& task, float scale, float eps, float scaling) {
    Scratch& scratch = *reinterpret_cast<Scratch*>(context.scratch);
    const int* request = operand<const int>(task, kRequests);  // written at the end of the step before
    const int first = request[RequestColumn::kFirstRow], count = request[RequestColumn::kNumRows];
    const int cached = request[RequestColumn::kCached];
    const int blocks = ceil_div(ceil_div(cached + count, kSplits), kSplitBlock);
    const int begin = min(task.index[2] * blocks * kSplitBlock, cached + count);
    const int end = min(begin + blocks * kSplitBlock, cached + count);
    if (!context.wait(task) || count == 0) return;
    if constexpr (kAppend) append(context, task, first, count, cached, begin, end, eps, scaling);
    for (int row = 0; row < count; ++row) {
      prepare_queries(context, scratch, task, first + row, cached + row, scale, eps, scaling);
      const int visible = min(end, cached + row + 1);
      for (int head = 0; head < kGroup; head += kPass) {
        State state;
        attend(context, scratch, task, head, begin, visible, state);
        merge_lanes(state);
        store_partial(context, scratch, state);
        context.sync();
        write(context, scratch, task, first + row, head);
        context.sync();
      }
    }
  }

 private:
  static __device__ __forceinline__ size_t cache_offset(const Task& task, int position) {
    const int page = operand<const int>(task, kPageTable)[position / kPageSize];
    return static_cast<size_t>(page) * kKvHeads * kPageSize * kHeadDim + position % kPageSize * kHeadDim;
  }

  // Keys and values of this step's rows that fall into this split go to the cache; a warp takes a row.
  static __device__ void append(Context& context, const Task& task, int first, int count, int cached, int begin,
                                int end, float eps, float scaling) {
    for (int row = context.warp(); row < count; row += kConsumerWarps) {
      const int position = cached + row;
      if (position < begin || position >= end) continue;
      const size_t offset = cache_offset(task, position);
      HeadPairs<kHeadDim> key, value;
      key.load(operand<const bf16>(task, kK) + static_cast<size_t>(first + row) * task.row_stride[kK], context.lane());
      value.load(operand<const bf16>(task, kV) + static_cast<size_t>(first + row) * task.row_stride[kV],
                 context.lane());
      prepare(key, task, kKNorm, position, eps, scaling, context.lane());
      key.store(operand<bf16>(task, kKCache) + offset, 1.0f, context.lane());
      value.store(operand<bf16>(task, kVCache) + offset, 1.0f, context.lane());
    }
    context.sync();
  }

  static __device__ __forceinline__ void prepare(HeadPairs<kHeadDim>& head, const Task& task, Operand norm,
                                                 int position, float eps, float scaling, int lane) {
    if constexpr (kNorm) head.norm(operand<const bf16>(task, norm), eps, lane);
    if constexpr (kRotary) head.rotate(operand<const float>(task, kInvFreq), position, scaling, lane);
  }

  // Queries to shared memory in fp32, scaled so that the softmax can use powers of two.
  static __device__ void prepare_queries(Context& context, Scratch& scratch, const Task& task, int row, int position,
                                         float scale, float eps, float scaling) {
    for (int head = context.warp(); head < kGroup; head += kConsumerWarps) {
      HeadPairs<kHeadDim> query;
      const bf16* q = operand<const bf16>(task, kQ) + static_cast<size_t>(row) * task.row_stride[kQ];
      query.load(q + head * kHeadDim, context.lane());
      prepare(query, task, kQNorm, position, eps, scaling, context.lane());
      query.store(scratch.q[head], scale * kLog2E, context.lane());
    }
    context.sync();
  }

  static __device__ void attend(Context& context, const Scratch& scratch, const Task& task, int head, int begin,
                                int visible, State& state) {
    const int part = context.lane() % kLanes;
    float q[kPass][8];
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
      state.highest[h] = kNegativeInfinity;
      state.total[h] = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        state.sum[h][i] = 0.0f;
        q[h][i] = scratch.q[head + h][8 * part + i];
      }
    }
    const bf16* keys = operand<const bf16>(task, kKCache) + 8 * part;
    const bf16* values = operand<const bf16>(task, kVCache) + 8 * part;
    const int mine = context.warp() * kPerWarp + context.lane() / kLanes;
    // All lanes of a warp run the same number of rounds: the reductions need them together. A round's loads are all
    // issued before the first use.
    for (int base = begin; base < visible; base += kStride * kRound) {
      Vector16 key[kRound], value[kRound];
#pragma unroll
      for (int u = 0; u < kRound; ++u) {
        const int position = base + u * kStride + mine;
        const size_t offset = cache_offset(task, position < visible ? position : begin);
        key[u] = load_vector(keys + offset);
        value[u] = load_vector(values + offset);
      }
      float score[kPass][kRound];
#pragma unroll
      for (int u = 0; u < kRound; ++u) add_scores(q, key[u], base + u * kStride + mine < visible, u, score);
#pragma unroll
      for (int h = 0; h < kPass; ++h) rescale(state, h, score[h]);
#pragma unroll
      for (int u = 0; u < kRound; ++u) add_values(state, value[u], u, score);
    }
  }

  // score[h][u] = query h times the key; far below any other where there is no position.
  static __device__ __forceinline__ void add_scores(const float (&q)[kPass][8], const Vector16& vector, bool valid,
                                                    int u, float (&score)[kPass][kRound]) {
    float key[8];
    unpack(vector, key);
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
      float product = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) product += q[h][i] * key[i];
      product = sum_over_lanes<kLanes>(product);
      score[h][u] = valid ? product : 2.0f * kNegativeInfinity;
    }
  }

  // Scores become weights relative to the new maximum; what was summed before is scaled to it.
  static __device__ __forceinline__ void rescale(State& state, int h, float (&score)[kRound]) {
    float highest = state.highest[h];
#pragma unroll
    for (int u = 0; u < kRound; ++u) highest = fmaxf(highest, score[u]);
    const float old = exp2f(state.highest[h] - highest);
    state.highest[h] = highest;
    state.total[h] *= old;
#pragma unroll
    for (int u = 0; u < kRound; ++u) {
      score[u] = exp2f(score[u] - highest);
      state.total[h] += score[u];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) state.sum[h][i] *= old;
  }

  static __device__ __forceinline__ void add_values(State& state, const Vector16& vector, int u,
                                                    const float (&weight)[kPass][kRound]) {
    float value[8];
    unpack(vector, value);
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) state.sum[h][i] += weight[h][u] * value[i];
    }
  }

  // The lane groups of a warp become one state, the same in every group.
  static __device__ __forceinline__ void merge_lanes(State& state) {
#pragma unroll
    for (int offset = kLanes; offset < 32; offset *= 2) {
#pragma unroll
      for (int h = 0; h < kPass; ++h) {
        const float highest = fmaxf(state.highest[h], __shfl_xor_sync(0xFFFFFFFFu, state.highest[h], offset));
        const float weight = exp2f(state.highest[h] - highest);
        state.highest[h] = highest;
        const float total = state.total[h] * weight;
        state.total[h] = total + __shfl_xor_sync(0xFFFFFFFFu, total, offset);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          const float sum = state.sum[h][i] * weight;
          state.sum[h][i] = sum + __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
        }
      }
    }
  }

  static __device__ __forceinline__ void store_partial(Context& context, Scratch& scratch, const State& state) {
    const int lane = context.lane(), warp = context.warp();
    if (lane >= kLanes) return;
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) scratch.sum[warp][h][8 * lane + i] = state.sum[h][i];
      if (lane == 0) {
        scratch.highest[warp][h] = state.highest[h];
        scratch.total[warp][h] = state.total[h];
      }
    }
  }

  // Merges the warps in order; one split writes the output, several write what attention_merge needs.
  static __device__ void write(Context& context, const Scratch& scratch, const Task& task, int row, int head) {
    for (int i = context.thread; i < kPass * kHeadDim; i += kConsumers) {
      const int h = i / kHeadDim, d = i % kHeadDim;
      float highest = kNegativeInfinity, total = 0.0f, sum = 0.0f;
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) highest = fmaxf(highest, scratch.highest[w][h]);
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) {
        const float weight = exp2f(scratch.highest[w][h] - highest);
        total += weight * scratch.total[w][h];
        sum += weight * scratch.sum[w][h][d];
      }
      const size_t out = static_cast<size_t>(row) * task.row_stride[kOut] + (head + h) * kHeadDim + d;
      if constexpr (kSplits == 1) {
        operand<bf16>(task, kOut)[out] = from_float<bf16>(sum / total);
      } else {
        operand<float>(task, kOut)[out] = sum;
        if (d == 0) {
          float* max_sum = operand<float>(task, kMaxSum) + static_cast<size_t>(row) * task.row_stride[kMaxSum];
          max_sum[2 * (head + h)] = highest;
          max_sum[2 * (head + h) + 1] = total;
        }
      }
    }
  }
};

}  // namespace mpk
