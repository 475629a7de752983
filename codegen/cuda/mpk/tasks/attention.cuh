// Attention of one request's rows over one KV head and one split of the positions, on tensor cores.
//
// Warps take blocks of 16 positions in turn, each with its own running maximum and sum (online softmax), and are merged
// in a fixed order at the end. Scores are queries (A, a row a query head, up to 8) times keys (B); outputs are values
// transposed (A) times the weights that the scores became (B), so that a lane's scores are its operand of the second
// product as they stand. The order of the columns in the first product, of the rows in the second and of the positions
// inside a block is free as long as both operands agree, so keys and values are read as they lie, 16 bytes a lane.
#pragma once

#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/panels.cuh"
#include "mpk/runtime/loader.cuh"

namespace mpk {

constexpr int kMostStages = 2;  // that attention takes at once (tasks/attention.py)

template <int kHeads, int kKvHeads, int kHeadDim, int kPageSize, int kSplits, int kRows, bool kAppend, bool kNorm,
          bool kRotary, int kOutPanel, int kWindow = 0, bool kCapped = false>
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
  static constexpr int kBlock = 16;                           // positions of two products; a split is a multiple
  static constexpr int kPass = min_of(kGroup, 8);             // query heads of a product
  static constexpr int kLanes = kHeadDim / 8;                 // that hold a head, 16 bytes each
  static constexpr int kKeyParts = ceil_div(kHeadDim, 32);    // of a key, 16 bytes a lane, for two products each
  static constexpr int kValueParts = ceil_div(kHeadDim, 64);  // of a value, 16 bytes a lane, for four products each
  static constexpr int kPositionBytes = 2 * kHeadDim;
  static constexpr bool kLongSplits = kSplits < kConsumerWarps;  // all warps are at work; in many splits few are
  // All positions begin in the same bank.
  static constexpr bool kRowsMeet = kPositionBytes % 256 == 0 && kLongSplits;
  static constexpr bool kKeysMeet = kPositionBytes % 128 == 0 && kKeyParts % 2 == 0;
  static constexpr int kStageBlocks = kStageBytes / 2 / kPositionBytes / kBlock;
  static constexpr int kStagePositions = kStageBlocks * kBlock;
  // Of a round: waited for, and given back, at once. A wait costs as much as half a block, but in a long split it is
  // the ring that must be free again soon.
  static constexpr int kRoundStages = kLongSplits ? 1 : min_of(ceil_div(kConsumerWarps, kStageBlocks), kMostStages);
  static constexpr int kRoundBlocks = kRoundStages * kStageBlocks;
  static constexpr float kSlack = 8.0f;  // by so many powers of two weights may exceed one before sums are scaled down
  static constexpr float kLog2E = 1.4426950408889634f;
  static_assert(kHeads % kKvHeads == 0, "Attention: query heads must divide evenly among KV heads");
  static_assert(kHeadDim % 16 == 0 && kLanes >= 2 && kLanes <= 32, "Attention: head size must be 16, 32, 48, .. 256");

  static constexpr int kNewHeads = kGroup + (kAppend ? 2 : 0);  // of a row: its queries, then its key and value

  struct Scratch {
    alignas(16) bf16 raw[kNewHeads][kHeadDim];
    alignas(16) bf16 q[kGroup][kHeadDim];
    alignas(16) bf16 key[kHeadDim], value[kHeadDim];  // of the row
    alignas(16) float sum[kConsumerWarps][kPass][kHeadDim];
    float highest[kConsumerWarps][kPass];
    float total[kConsumerWarps][kPass];
  };

  // Of one warp. Lane (g, q): maximum and its part of the sum of query head g; outputs of heads 2q and 2q + 1.
  struct State {
    float highest, total;
    float sum[kValueParts][4][4];
  };

  // The queries of a pass as A operands, of two products a part. Rows 8 .. 15 are zero or, where keys meet, the
  // queries' columns in the other order of two neighbouring parts.
  struct Queries {
    Vector16 part[kKeyParts][2];
    float scale, cap;  // of scores, in powers of two; they stay below the cap, if there is one
  };

  // Keys and values of earlier steps go through the ring, some positions a stage, keys first. Only where one row uses
  // them, for all its heads at once: more would not fit in registers.
  static __device__ __forceinline__ bool load(Loader& loader, const Task& task) {
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

  static __device__ __forceinline__ void run(Context& context, const Task& task, float scale, float eps, float scaling,
                                             float softcap = 0.0f) {
    Scratch& scratch = context.next_scratch<Scratch>();
    Rotation<kHeadDim> rotation;
    if constexpr (kRotary) rotation.load(operand<const float>(task, kInvFreq), context.lane());
    const Range range = range_of(task);
    Queries queries;
    queries.scale = scale * kLog2E, queries.cap = softcap * kLog2E;
    context.wait(task);
    for (int row = 0; row < range.count; ++row) {
      const int position = range.cached + row;
      const bool mine = position >= range.begin && position < range.end;
      prepare_row(context, scratch, task, range.first_row + row, position, mine, {eps, scaling}, rotation);
      for (int head = 0; head < kGroup; head += kPass) {
        const int warps = attend(context, scratch, task, range, position, head, queries);
        context.sync();
        write(context, scratch, task, range.first_row + row, head, warps);
        if (row + 1 < range.count || head + kPass < kGroup) context.sync();
      }
    }
    clear_unused_rows(context, task);
    if (range.count == 0) context.sync();  // next_scratch asks for one
  }

 private:
  struct Numbers {
    float eps, rotary_scaling;
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
    const int size = ceil_div(ceil_div(length, kSplits), kBlock) * kBlock;
    range.begin = min(task.index[2] * size, length);
    range.end = min(range.begin + size, length);
    if (kWindow > 0 && range.count == 1) range.begin = min(max(range.begin, length - kWindow), range.end);
    range.old_end = min(range.end, range.cached);
    range.streams = range.count == 1 && kPass == kGroup;
    return range;
  }

  static __device__ __forceinline__ size_t cache_offset(const Task& task, int position) {
    const int page = operand<const int>(task, kPageTable)[position / kPageSize];
    return static_cast<size_t>(page) * kKvHeads * kPageSize * kHeadDim + position % kPageSize * kHeadDim;
  }

  // One head a warp: queries go to shared memory; the row's key and value go there and to the cache, if its position is
  // `mine`.
  static __device__ void prepare_row(Context& context, Scratch& scratch, const Task& task, int row, int position,
                                     bool mine, Numbers numbers, Rotation<kHeadDim>& rotation) {
    const int lane = context.lane();
    if constexpr (kRotary) rotation.turn_to(position, numbers.rotary_scaling);
    for (int head = context.warp(); head < (mine ? kNewHeads : kGroup); head += kConsumerWarps) {
      bf16* raw = scratch.raw[head];
      HeadPairs<kHeadDim> values, weights;
      if constexpr (kNorm) weights.load(operand<const bf16>(task, head < kGroup ? kQNorm : kKNorm), lane);
      fetch_head(context, task, row, head, raw);
      values.load(raw, lane);
      if (head <= kGroup) {
        if constexpr (kNorm) values.norm(weights, numbers.eps);
        if constexpr (kRotary) values.rotate(rotation);
      }
      if (head < kGroup) {
        values.store(scratch.q[head], 1.0f, lane);
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
    context.load(task, slot, values,
                 Places{[&](int) { return context.lane() < kLanes; },
                        [&](int) { return reinterpret_cast<const Vector16*>(source); }});
    if (context.lane() < kLanes) *reinterpret_cast<Vector16*>(raw + 8 * context.lane()) = values[0];
    __syncwarp();
  }

  // The heads from `head` on over the positions that a row sees; returns how many warps have a part of it.
  static __device__ __forceinline__ int attend(Context& context, Scratch& scratch, const Task& task, const Range& range,
                                               int position, int head, Queries& queries) {
    load_queries(context, scratch, head, queries);
    State state = {kNegativeInfinity};
    int blocks = 0;
    if (range.streams) blocks = attend_streamed(context, scratch, range, queries, state);
    if (!range.streams || !kAppend) {
      const int end = min(range.end, position + 1);
      const int first = range.streams ? max(range.begin, range.cached) : range.begin;
      const int begin = kWindow > 0 ? max(first, position + 1 - kWindow) : first;
      blocks = attend_stored(context, task, begin, end, queries, blocks, state);
    }
    const int warps = min(blocks, kConsumerWarps);
    if (context.warp() < warps) store_partial(context, scratch, head, state);
    return warps;
  }

  static __device__ __forceinline__ void load_queries(const Context& context, const Scratch& scratch, int head,
                                                      Queries& queries) {
    const int row = context.lane() / 4, column = context.lane() % 4 * 8;
    const auto load = [&](int part) {
      const bool inside = head + row < kGroup && row < kPass && 32 * part + column < kHeadDim;
      return inside ? load_vector(&scratch.q[head + row][32 * part + column]) : Vector16{};
    };
#pragma unroll
    for (int i = 0; i < kKeyParts; ++i) {
      const Vector16 own = load(i), other = kKeysMeet ? load(i ^ 1) : Vector16{};
      queries.part[i][0] = {own.word[0], other.word[0], own.word[1], other.word[1]};
      queries.part[i][1] = {own.word[2], other.word[2], own.word[3], other.word[3]};
    }
  }

  // Where the keys and values of a block's positions lie: `count` of earlier steps in the ring, then that of this step.
  struct SharedRows {
    const char* keys;
    const Scratch& scratch;
    int count;

    __device__ __forceinline__ const char* key(int position) const { return row(position, 0, scratch.key); }
    __device__ __forceinline__ const char* value(int position) const {
      return row(position, kStageBytes / 2, scratch.value);
    }

   private:
    __device__ __forceinline__ const char* row(int position, int half, const bf16* now) const {
      return position < count ? keys + half + position * kPositionBytes : reinterpret_cast<const char*>(now);
    }
  };

  struct StoredRows {
    const Task& task;
    int first;
    __device__ __forceinline__ const char* key(int position) const { return row(kKCache, position); }
    __device__ __forceinline__ const char* value(int position) const { return row(kVCache, position); }

   private:
    __device__ __forceinline__ const char* row(Operand cache, int position) const {
      return operand<const char>(task, cache) + cache_offset(task, first + position) * sizeof(bf16);
    }
  };

  // Each returns the number of blocks so far: a warp takes every eighth, from the one of its own number on.
  static __device__ __forceinline__ int attend_streamed(Context& context, const Scratch& scratch, const Range& range,
                                                        const Queries& queries, State& state) {
    const int old = range.old_end - range.begin, all = kAppend ? range.end - range.begin : old;
    for (int first = 0; first < all; first += kRoundBlocks * kBlock) {
      const int taken = max(0, min(ceil_div(old - first, kStagePositions), kRoundStages));
      const int stage = context.acquire_up_to<kRoundStages>(taken);
      const int mine = (context.warp() - first / kBlock) & (kConsumerWarps - 1);
      unsigned used = 0;
      for (int block = mine; block < kRoundBlocks; block += kConsumerWarps) {
        const int at = first + block * kBlock;
        if (at >= all) break;
        const char* keys =
            context.stage_at(stage + block / kStageBlocks) + block % kStageBlocks * kBlock * kPositionBytes;
        used ^= attend_block(context, SharedRows{keys, scratch, old - at}, all - at, queries, state);
      }
      context.release_stages(used, taken);
    }
    return ceil_div(all, kBlock);
  }

  // Positions begin .. end from the cache in memory.
  static __device__ __forceinline__ int attend_stored(const Context& context, const Task& task, int begin, int end,
                                                      const Queries& queries, int blocks, State& state) {
    for (int p = begin; p < end; p += kBlock, ++blocks) {
      if (blocks % kConsumerWarps != context.warp()) continue;
      attend_block(context, StoredRows{task, p}, end - p, queries, state);
    }
    return blocks;
  }

  // Up to 16 positions, of which `count` are there.
  template <typename Rows>
  static __device__ __forceinline__ unsigned attend_block(const Context& context, const Rows& rows, int count,
                                                          const Queries& queries, State& state) {
    Vector16 value[4][kValueParts];
    load_values(context, rows, count, value);
    float score[2][2];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) add_scores(context, rows, count, tile, queries, score[tile]);
    const float highest = fmaxf(fmaxf(score[0][0], score[0][1]), fmaxf(score[1][0], score[1][1]));
    // Scores may exceed the maximum so far by a little. Seldom they do by more; then a head's lanes tell each other.
    if (__any_sync(0xFFFFFFFFu, highest > state.highest + kSlack)) {
      rescale(context, fmaxf(max_over_quad(highest), state.highest), state);
    }
    unsigned weights[2];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      const float low = exp2_approximate(score[tile][0] - state.highest);
      const float high = exp2_approximate(score[tile][1] - state.highest);
      state.total += low + high;
      weights[tile] = pack_bf16(low, high);
    }
    add_values(value, weights, state);
    unsigned used = __float_as_uint(highest);  // needs all keys
#pragma unroll
    for (int k = 0; k < 4 * kValueParts; ++k) used ^= value[k / kValueParts][k % kValueParts].word[0];
    return used;
  }

  // cap * tanh(score / cap), as exact as a score needs: tanhf, exact for small ratios too, takes too many registers.
  static __device__ __forceinline__ float capped(float score, float cap) {
    return kCapped ? cap - 2.0f * cap / (1.0f + exp2f(2.0f * kLog2E * score / cap)) : score;
  }

  // score: lane (g, q) has query head g times positions 2q and 2q + 1 of the tile of 8. Where keys meet, lanes of odd
  // positions read two neighbouring parts in the other order, and so from other banks: the sums of these positions
  // stand in rows 8 .. 15 of the product.
  template <typename Rows>
  static __device__ __forceinline__ void add_scores(const Context& context, const Rows& rows, int count, int tile,
                                                    const Queries& queries, float (&score)[2]) {
    const int row = context.lane() / 4, position = 8 * tile + row, column = context.lane() % 4 * 16;
    const char* source = rows.key(position < count ? position : 0) + column;
    const int turn = kKeysMeet ? row % 2 * 64 : 0;
    Vector16 key[kKeyParts];
#pragma unroll
    for (int i = 0; i < kKeyParts; ++i) {
      const bool inside = kHeadDim % 32 == 0 || 64 * i + column < kPositionBytes;
      key[i] = inside ? load_vector(source + (i % 2 ? -turn : turn) + 64 * i) : Vector16{};
    }
    float one[4] = {}, two[4] = {};
#pragma unroll
    for (int i = 0; i < kKeyParts; ++i) {
      const unsigned (&a)[4] = queries.part[i][0].word, (&b)[4] = queries.part[i][1].word;
      mma_m16n8k16(one, a[0], a[1], a[2], a[3], key[i].word[0], key[i].word[1]);
      mma_m16n8k16(two, b[0], b[1], b[2], b[3], key[i].word[2], key[i].word[3]);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int sum = kKeysMeet ? 3 * j : j;
      const bool valid = 8 * tile + 2 * (context.lane() % 4) + j < count;
      score[j] = valid ? capped((one[sum] + two[sum]) * queries.scale, queries.cap) : 2.0f * kNegativeInfinity;
    }
  }

  // Makes sums relative to a new maximum. The lanes of head g know its factor, those that sum for it fetch it.
  static __device__ __forceinline__ void rescale(const Context& context, float highest, State& state) {
    const float factor = exp2_approximate(state.highest - highest);
    state.highest = highest;
    state.total *= factor;
    const int quad = context.lane() % 4;
    const float even = __shfl_sync(0xFFFFFFFFu, factor, 8 * quad);
    const float odd = __shfl_sync(0xFFFFFFFFu, factor, 8 * quad + 4);
#pragma unroll
    for (int i = 0; i < kValueParts * 4; ++i) {
      float (&sum)[4] = state.sum[i / 4][i % 4];
      sum[0] *= even, sum[1] *= odd, sum[2] *= even, sum[3] *= odd;
    }
  }

  // First of the 8 columns of a part of the values that the lanes of group g take.
  static __device__ __forceinline__ int value_column(int part, int group) {
    return kRowsMeet ? part / 2 * 128 + 16 * group + part % 2 * 8 : part * 64 + 8 * group;
  }

  // Lane (g, q) takes positions 2q, 2q + 1, 2q + 8 and 2q + 9.
  template <typename Rows>
  static __device__ __forceinline__ void load_values(const Context& context, const Rows& rows, int count,
                                                     Vector16 (&value)[4][kValueParts]) {
    const int group = context.lane() / 4, quad = context.lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int position = i / 2 * 8 + quad * 2 + i % 2;
      const char* source = rows.value(position < count ? position : 0);
#pragma unroll
      for (int part = 0; part < kValueParts; ++part) {
        const int column = value_column(part, group);
        const bool inside = kHeadDim % 64 == 0 || column < kHeadDim;
        if (!kRowsMeet) value[i][part] = inside ? load_vector(source + 2 * column) : Vector16{};
        if (kRowsMeet && part % 2 == 0)
          load_pair(source + 2 * column, 16, quad % 2, value[i][part], value[i][part + 1]);
      }
    }
  }

  // Product j of a part: row g of A is column 2j of the lane's values, row g + 8 the column behind it.
  static __device__ __forceinline__ void add_values(const Vector16 (&value)[4][kValueParts],
                                                    const unsigned (&weights)[2], State& state) {
#pragma unroll
    for (int part = 0; part < kValueParts; ++part) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const unsigned a = value[0][part].word[j], b = value[1][part].word[j];
        const unsigned c = value[2][part].word[j], d = value[3][part].word[j];
        mma_m16n8k16(state.sum[part][j], low_halves(a, b), high_halves(a, b), low_halves(c, d), high_halves(c, d),
                     weights[0], weights[1]);
      }
    }
  }

  static __device__ __forceinline__ void store_partial(const Context& context, Scratch& scratch, int head,
                                                       const State& state) {
    const int warp = context.warp(), group = context.lane() / 4, quad = context.lane() % 4;
    const int heads = min(kPass, kGroup - head);
#pragma unroll
    for (int i = 0; i < kValueParts * 4; ++i) {
      const int column = value_column(i / 4, group) + i % 4 * 2;
      if (kHeadDim % 64 && column >= kHeadDim) continue;
      const float (&sum)[4] = state.sum[i / 4][i % 4];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (2 * quad + j >= heads) continue;
        *reinterpret_cast<float2*>(&scratch.sum[warp][2 * quad + j][column]) = float2{sum[j], sum[2 + j]};
      }
    }
    const float total = sum_over_quad(state.total);
    if (quad > 0 || group >= heads) return;
    scratch.highest[warp][group] = state.highest;
    scratch.total[warp][group] = total;
  }

  // Merges the warps in order; one split writes the output, several write what attention_merge needs. A thread makes
  // two neighbouring elements. What a warp without a part has is not looked at, but loaded like the others', at once.
  static __device__ void write(Context& context, const Scratch& scratch, const Task& task, int row, int head,
                               int warps) {
    const int heads = min(kPass, kGroup - head);
    for (int i = context.thread; i < heads * kHeadDim / 2; i += kConsumers) {
      const int h = i / (kHeadDim / 2), d = i % (kHeadDim / 2) * 2;
      float highs[kConsumerWarps], totals[kConsumerWarps];
      float2 parts[kConsumerWarps];
      float highest = kNegativeInfinity, total = 0.0f;
      float2 sum = {};
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) {
        highs[w] = scratch.highest[w][h], totals[w] = scratch.total[w][h];
        parts[w] = *reinterpret_cast<const float2*>(&scratch.sum[w][h][d]);
        if (w < warps) highest = fmaxf(highest, highs[w]);
      }
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) {
        const float weight = w < warps ? exp2_approximate(highs[w] - highest) : 0.0f;
        if (w < warps) total += weight * totals[w];
        if (w < warps) sum = {sum.x + weight * parts[w].x, sum.y + weight * parts[w].y};
      }
      publish_pair(context, task, row, head + h, d, sum, highest, total);
    }
  }

  static __device__ __forceinline__ void publish_pair(const Context& context, const Task& task, int row, int head,
                                                      int d, float2 sum, float highest, float total) {
    const size_t out = element_offset<kOutPanel>(row, head * kHeadDim + d, task.row_stride[kOut]);
    if constexpr (kSplits == 1) {
      context.publish(task, kOut, out / 2, pack_bf16(__fdividef(sum.x, total), __fdividef(sum.y, total)));
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
    constexpr int kColumns = kSplits == 1 ? 2 : 1;  // of a word
    for (int row = context.rows_from(0, kRows); row < context.touched_rows_from(0, kRows); ++row) {
      for (int i = context.thread; i < kGroup * kHeadDim / kColumns; i += kConsumers) {
        const size_t out = element_offset<kOutPanel>(row, i * kColumns, task.row_stride[kOut]);
        context.publish(task, kOut, out / kColumns, 0u, false);
      }
      if constexpr (kSplits > 1) {
        const size_t place = static_cast<size_t>(row) * task.row_stride[kMaxSum];
        if (context.thread < 2 * kGroup) context.publish(task, kMaxSum, place + context.thread, 0u, false);
      }
    }
  }
};

}  // namespace mpk
