// Attention of one request's rows over one KV head and one split of the positions, on CUDA cores.
//
// kHeadDim / 8 lanes hold a position's key, 8 elements each; the warps' lane groups take positions in turn, each with
// its own running maximum and sum (online softmax), and are merged in a fixed order at the end.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeads, int kKvHeads, int kHeadDim, int kPageSize, int kSplits, int kRows, bool kAppend, bool kNorm,
          bool kRotary>
struct Attention {
  enum Operand {
    kQ,
    kK,
    kV,
    kKCache,
    kVCache,
    kRequests,
    kPageTable,
    kQNorm,
    kKNorm,
    kInvFreq,
    kOut,
    kMaxSum,
    kRowCount
  };

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
  static constexpr int kRound = 2;  // positions of a lane group in flight
  static constexpr int kPositionBytes = 2 * kHeadDim;
  static constexpr int kStagePositions = kStageBytes / 2 / kPositionBytes;
  static constexpr int kStageRounds = kStagePositions / kStride;
  static constexpr float kLog2E = 1.4426950408889634f;
  static_assert(kHeads % kKvHeads == 0, "Attention: query heads must divide evenly among KV heads");
  static_assert(kLanes >= 2 && kLanes <= 32 && (kLanes & (kLanes - 1)) == 0, "Attention: head size must be 16..256");

  static constexpr int kNewHeads = kGroup + (kAppend ? 2 : 0);  // of a row: its queries, then its key and value

  struct Scratch {
    alignas(16) bf16 raw[kNewHeads][kHeadDim];
    alignas(16) bf16 key[kHeadDim], value[kHeadDim];  // of the row
    float q[kGroup][kHeadDim];
    float sum[kConsumerWarps][kPass][kHeadDim];
    float highest[kConsumerWarps][kPass];
    float total[kConsumerWarps][kPass];
  };

  struct State {
    float highest[kPass], total[kPass], sum[kPass][8];
  };

  // Keys and values of earlier steps go through the ring, some positions a stage, keys first. Only where one row uses
  // them, for all its heads at once: more would not fit in registers.
  static __device__ bool load(Loader& loader, const Task& task) {
    loader.wait_for_step();
    const Range range = range_of(task);
    if (!range.streams) return true;
    const char* caches[2] = {operand<const char>(task, kKCache), operand<const char>(task, kVCache)};
    for (int p = range.begin; p < range.old_end; p += kStagePositions) {
      const int count = min(kStagePositions, range.old_end - p);
      char* stage = loader.begin_stage(2 * count * kPositionBytes);
      if (stage == nullptr) return false;
      for (int done = 0, some; done < count; done += some) {
        some = min(count - done, kPageSize - (p + done) % kPageSize);
        const size_t offset = cache_offset(task, p + done) * sizeof(bf16);
        for (int half = 0; half < 2; ++half) {
          char* target = stage + half * kStageBytes / 2 + done * kPositionBytes;
          loader.copy(target, caches[half] + offset, some * kPositionBytes);
        }
      }
      loader.end_stage();
    }
    return true;
  }

  static __device__ void run(Context& context, const Task& task, float scale, float eps, float scaling) {
    Scratch& scratch = context.next_scratch<Scratch>();
    const Range range = range_of(task);
    context.wait(task);
    for (int row = 0; row < range.count; ++row) {
      const int position = range.cached + row;
      const bool mine = position >= range.begin && position < range.end;
      prepare_row(context, scratch, task, range.first_row + row, position, mine, {scale, eps, scaling});
      const int visible = min(range.end, position + 1);
      for (int head = 0; head < kGroup; head += kPass) {
        float q[kPass][8];
        load_queries(context, scratch, head, q);
        State state;
        clear(state);
        if (range.streams) {
          attend_streamed(context, range, q, state);
          if (mine && kAppend) attend_new(context, scratch, q, state);
        }
        const int stored = !range.streams ? range.begin : kAppend ? visible : max(range.begin, range.cached);
        attend_stored(context, task, stored, visible, q, state);
        merge_lanes(state);
        store_partial(context, scratch, state);
        context.sync();
        write(context, scratch, task, range.first_row + row, head);
        if (row + 1 < range.count || head + kPass < kGroup) context.sync();
      }
    }
    clear_unused_rows(context, task);
    if (range.count == 0) context.sync();  // next_scratch asks for one
  }

 private:
  struct Numbers {
    float scale, eps, rotary_scaling;
  };

  // Rows of the request in this step, and positions of the split: begin .. end, of which those before old_end are of
  // earlier steps.
  struct Range {
    int first_row, count, cached, begin, end, old_end;
    bool streams;
  };

  static __device__ __forceinline__ Range range_of(const Task& task) {
    const int* request = operand<const int>(task, kRequests);  // written at the end of the step before
    Range range;
    range.first_row = request[RequestColumn::kFirstRow];
    range.count = request[RequestColumn::kNumRows];
    range.cached = request[RequestColumn::kCached];
    const int length = range.cached + range.count;
    const int size = ceil_div(ceil_div(length, kSplits), kSplitBlock) * kSplitBlock;
    range.begin = min(task.index[2] * size, length);
    range.end = min(range.begin + size, length);
    range.old_end = min(range.end, range.cached);
    range.streams = range.count == 1 && kPass == kGroup;
    return range;
  }

  static __device__ __forceinline__ size_t cache_offset(const Task& task, int position) {
    const int page = operand<const int>(task, kPageTable)[position / kPageSize];
    return static_cast<size_t>(page) * kKvHeads * kPageSize * kHeadDim + position % kPageSize * kHeadDim;
  }

  // One head a warp: queries go to shared memory in fp32, scaled so that the softmax can use powers of two; the row's
  // key and value go to the cache, if its position is `mine`.
  static __device__ void prepare_row(Context& context, Scratch& scratch, const Task& task, int row, int position,
                                     bool mine, Numbers numbers) {
    const int lane = context.lane();
    Rotation<kHeadDim> rotation;
    if constexpr (kRotary) {
      rotation.prepare(operand<const float>(task, kInvFreq), position, numbers.rotary_scaling, lane);
    }
    for (int head = context.warp(); head < (mine ? kNewHeads : kGroup); head += kConsumerWarps) {
      bf16* raw = scratch.raw[head];
      fetch_head(context, task, row, head, raw);
      HeadPairs<kHeadDim> values;
      values.load(raw, lane);
      if (head <= kGroup) {
        const Operand norm = head < kGroup ? kQNorm : kKNorm;
        if constexpr (kNorm) values.norm(operand<const bf16>(task, norm), numbers.eps, lane);
        if constexpr (kRotary) values.rotate(rotation);
      }
      if (head < kGroup) {
        values.store(scratch.q[head], numbers.scale * kLog2E, lane);
      } else {
        values.store(head == kGroup ? scratch.key : scratch.value, 1.0f, lane);
        values.store(operand<bf16>(task, head == kGroup ? kKCache : kVCache) + cache_offset(task, position), 1.0f,
                     lane);
        fence_proxy_async_global();  // the copy engine will read it in a later step
      }
    }
    context.stamp(ProfilePhase::kReady);
    context.sync();
  }

  // A new head of `row` as it stands in memory, to shared memory.
  static __device__ __forceinline__ void fetch_head(Context& context, const Task& task, int row, int head, bf16* raw) {
    const Operand slot = head < kGroup ? kQ : head == kGroup ? kK : kV;
    const bf16* source = context.current<const bf16>(task, slot) + static_cast<size_t>(row) * task.row_stride[slot] +
                         (head < kGroup ? head * kHeadDim : 0) + 8 * context.lane();
    Vector16 values[1];
    auto address = [&](int) { return context.lane() < kLanes ? reinterpret_cast<const Vector16*>(source) : nullptr; };
    context.load(task, slot, values, address);
    if (context.lane() < kLanes) *reinterpret_cast<Vector16*>(raw + 8 * context.lane()) = values[0];
    __syncwarp();
  }

  static __device__ __forceinline__ void load_queries(const Context& context, const Scratch& scratch, int head,
                                                      float (&q)[kPass][8]) {
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
#pragma unroll
      for (int i = 0; i < 8; ++i) q[h][i] = scratch.q[head + h][8 * (context.lane() % kLanes) + i];
    }
  }

  static __device__ __forceinline__ void clear(State& state) {
#pragma unroll
    for (int h = 0; h < kPass; ++h) {
      state.highest[h] = kNegativeInfinity;
      state.total[h] = 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) state.sum[h][i] = 0.0f;
    }
  }

  // Of the positions that a warp takes at once, this lane's.
  static __device__ __forceinline__ int lane_position(const Context& context) {
    return context.warp() * kPerWarp + context.lane() / kLanes;
  }

  static __device__ __forceinline__ void attend_streamed(Context& context, const Range& range,
                                                         const float (&q)[kPass][8], State& state) {
    const int mine = lane_position(context), part = context.lane() % kLanes;
    for (int p = range.begin; p < range.old_end; p += kStagePositions) {
      const char* stage = context.acquire_stage();
      const int count = min(kStagePositions, range.old_end - p);
      Vector16 key[kStageRounds], value[kStageRounds];
#pragma unroll
      for (int u = 0; u < kStageRounds; ++u) {
        const int position = mine + u * kStride;
        const char* source = stage + (position < count ? position : 0) * kPositionBytes + 16 * part;
        key[u] = load_vector(source);
        value[u] = load_vector(source + kStageBytes / 2);
      }
      add_positions(q, key, value, mine, count, state);
      context.release_stage();
    }
  }

  // The one position of this step, from shared memory.
  static __device__ __forceinline__ void attend_new(const Context& context, const Scratch& scratch,
                                                    const float (&q)[kPass][8], State& state) {
    if (context.warp() != 0) return;
    const int part = context.lane() % kLanes;
    const Vector16 key[1] = {load_vector(&scratch.key[8 * part])}, value[1] = {load_vector(&scratch.value[8 * part])};
    add_positions(q, key, value, lane_position(context), 1, state);
  }

  // Positions begin .. end from the cache in memory. All lanes of a warp run the same number of rounds: the reductions
  // need them together. A round's loads are all issued before the first use.
  static __device__ void attend_stored(Context& context, const Task& task, int begin, int end,
                                       const float (&q)[kPass][8], State& state) {
    const int part = context.lane() % kLanes;
    const bf16* keys = operand<const bf16>(task, kKCache) + 8 * part;
    const bf16* values = operand<const bf16>(task, kVCache) + 8 * part;
    for (int base = begin; base < end; base += kStride * kRound) {
      Vector16 key[kRound], value[kRound];
      const int mine = base + lane_position(context);
#pragma unroll
      for (int u = 0; u < kRound; ++u) {
        const int position = mine + u * kStride;
        const size_t offset = cache_offset(task, position < end ? position : begin);
        key[u] = load_vector(keys + offset);
        value[u] = load_vector(values + offset);
      }
      add_positions(q, key, value, mine, end, state);
    }
  }

  // Every kStride-th position from `first` on, as far as it lies before `end`.
  template <int kCount>
  static __device__ __forceinline__ void add_positions(const float (&q)[kPass][8], const Vector16 (&key)[kCount],
                                                       const Vector16 (&value)[kCount], int first, int end,
                                                       State& state) {
    float score[kPass][kCount];
#pragma unroll
    for (int u = 0; u < kCount; ++u) add_scores(q, key[u], first + u * kStride < end, u, score);
#pragma unroll
    for (int h = 0; h < kPass; ++h) rescale(state, h, score[h]);
#pragma unroll
    for (int u = 0; u < kCount; ++u) add_values(state, value[u], u, score);
  }

  // score[h][u] = query h times the key; far below any other where there is no position.
  template <int kCount>
  static __device__ __forceinline__ void add_scores(const float (&q)[kPass][8], const Vector16& vector, bool valid,
                                                    int u, float (&score)[kPass][kCount]) {
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
  template <int kCount>
  static __device__ __forceinline__ void rescale(State& state, int h, float (&score)[kCount]) {
    float highest = state.highest[h];
#pragma unroll
    for (int u = 0; u < kCount; ++u) highest = fmaxf(highest, score[u]);
    const float old = exp2f(state.highest[h] - highest);
    state.highest[h] = highest;
    state.total[h] *= old;
#pragma unroll
    for (int u = 0; u < kCount; ++u) {
      score[u] = exp2f(score[u] - highest);
      state.total[h] += score[u];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) state.sum[h][i] *= old;
  }

  template <int kCount>
  static __device__ __forceinline__ void add_values(State& state, const Vector16& vector, int u,
                                                    const float (&weight)[kPass][kCount]) {
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

  // Merges the warps in order; one split writes the output, several write what attention_merge needs. A thread makes
  // two neighbouring elements.
  static __device__ void write(Context& context, const Scratch& scratch, const Task& task, int row, int head) {
    for (int i = context.thread; i < kPass * kHeadDim / 2; i += kConsumers) {
      const int h = i / (kHeadDim / 2), d = i % (kHeadDim / 2) * 2;
      float highest = kNegativeInfinity, total = 0.0f;
      float2 sum = {};
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) highest = fmaxf(highest, scratch.highest[w][h]);
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) {
        const float weight = exp2f(scratch.highest[w][h] - highest);
        total += weight * scratch.total[w][h];
        sum = {sum.x + weight * scratch.sum[w][h][d], sum.y + weight * scratch.sum[w][h][d + 1]};
      }
      publish_pair(context, task, row, head + h, d, sum, highest, total);
    }
  }

  static __device__ __forceinline__ void publish_pair(const Context& context, const Task& task, int row, int head,
                                                      int d, float2 sum, float highest, float total) {
    const size_t out = static_cast<size_t>(row) * task.row_stride[kOut] + head * kHeadDim + d;
    if constexpr (kSplits == 1) {
      context.publish(task, kOut, out / 2, pack_bf16(sum.x / total, sum.y / total));
    } else {
      context.publish(task, kOut, out, __float_as_uint(sum.x));
      context.publish(task, kOut, out + 1, __float_as_uint(sum.y));
      if (d > 0) return;
      const size_t place = static_cast<size_t>(row) * task.row_stride[kMaxSum] + 2 * head;
      context.publish(task, kMaxSum, place, __float_as_uint(highest));
      context.publish(task, kMaxSum, place + 1, __float_as_uint(total));
    }
  }

  // Rows that no request has in this step may have had one in the step before: the first request's tasks make them
  // unwritten.
  static __device__ void clear_unused_rows(const Context& context, const Task& task) {
    if (task.index[0] != 0) return;
    constexpr int kWords = kGroup * kHeadDim * (kSplits == 1 ? 2 : 4) / 4;
    for (int row = context.rows_from(0, kRows); row < context.touched_rows_from(0, kRows); ++row) {
      const size_t out = static_cast<size_t>(row) * task.row_stride[kOut] / (kSplits == 1 ? 2 : 1);
      for (int i = context.thread; i < kWords; i += kConsumers) context.publish(task, kOut, out + i, 0u, false);
      if constexpr (kSplits > 1) {
        const size_t place = static_cast<size_t>(row) * task.row_stride[kMaxSum];
        if (context.thread < 2 * kGroup) context.publish(task, kMaxSum, place + context.thread, 0u, false);
      }
    }
  }
};

}  // namespace mpk
