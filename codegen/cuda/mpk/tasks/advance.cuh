// The end of a step: keeps the chosen tokens and assigns the rows of the next step (core/requests.py says how).
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kBatch, int kRows, int kMaxLength, bool kByRequest, int... kStopTokens>
struct Advance {
  enum Operand { kSampled, kHistory, kRequests, kRowState, kRowCount };

  static constexpr int kSampledRows = kByRequest ? kBatch : kRows;
  static constexpr int kTurns = ceil_div(kBatch, 32);  // of a warp that takes a lane a request
  static constexpr unsigned kLanes = 0xFFFFFFFFu;
  static_assert(kBatch <= kRows && kBatch <= kConsumers, "Advance: one row and one thread a request");

  struct Scratch {
    int requests[kBatch][RequestColumn::kCount];
    int sampled[kSampledRows];
    int kept[kBatch];  // the token that a request has got in this step, or kNoToken
    int row_count;     // of the next step
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    Scratch& scratch = context.next_scratch<Scratch>();
    context.wait(task);
    load(context, scratch, task);
    context.sync();  // the block has seen all rows: nobody reads any more what is written from here on
    if (context.warp() == 0) {
      keep_tokens(scratch, task, context.lane());
      assign(scratch, context.lane());
    }
    context.sync();
    write(context, scratch, task);
  }

 private:
  // What was chosen in this step, and the requests as earlier steps left them: neither load waits for the other.
  static __device__ void load(const Context& context, Scratch& scratch, const Task& task) {
    const int rows = context.rows_from(0, kSampledRows);
    const unsigned* sampled = context.current<const unsigned>(task, kSampled);
    unsigned token[ceil_div(kSampledRows, kConsumers)];
    auto row_of = [&](int i) { return context.thread + i * kConsumers; };
    const Places places{[&](int i) { return row_of(i) < rows; }, [&](int i) { return sampled + row_of(i); }};
    context.begin_load(token, places);
    for (int i = context.thread; i < kBatch * RequestColumn::kCount; i += kConsumers)
      scratch.requests[i / RequestColumn::kCount][i % RequestColumn::kCount] = operand<const int>(task, kRequests)[i];
    context.end_load(task, kSampled, token, places);
    context.stamp(ProfilePhase::kReady);
#pragma unroll
    for (int i = 0; i < ceil_div(kSampledRows, kConsumers); ++i) {
      if (row_of(i) < rows) scratch.sampled[row_of(i)] = static_cast<int>(token[i]);
    }
  }

  // One warp, a lane a request. Tokens stand by row, or one after the other by request that has rows.
  static __device__ void keep_tokens(Scratch& scratch, const Task& task, int lane) {
    int before = 0;  // requests that have rows
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int b = 32 * i + lane;
      const bool active = b < kBatch && scratch.requests[b][RequestColumn::kNumRows] > 0;
      const unsigned lanes = __ballot_sync(kLanes, active);
      if (b < kBatch) scratch.kept[b] = kNoToken;
      if (active) keep_token(scratch, task, b, before + __popc(lanes & ((1u << lane) - 1)));
      before += __popc(lanes);
    }
  }

  // Of active request `b`, which is number `ordinal` of them. Its last row chose a token to keep if that was the row of
  // its last token.
  static __device__ void keep_token(Scratch& scratch, const Task& task, int b, int ordinal) {
    int (&request)[RequestColumn::kCount] = scratch.requests[b];
    const int count = request[RequestColumn::kNumRows], known = request[RequestColumn::kKnown];
    request[RequestColumn::kCached] += count;
    if (request[RequestColumn::kCached] != known) return;
    const int token = scratch.sampled[kByRequest ? ordinal : request[RequestColumn::kFirstRow] + count - 1];
    operand<int>(task, kHistory)[b * kMaxLength + known] = token;
    request[RequestColumn::kKnown] = known + 1;
    if ((false || ... || (token == kStopTokens))) request[RequestColumn::kStopLength] = known + 1;
    scratch.kept[b] = token;
  }

  static __device__ int pending(const int (&request)[RequestColumn::kCount]) {
    const bool active = request[RequestColumn::kKnown] < request[RequestColumn::kStopLength];
    return active ? request[RequestColumn::kKnown] - request[RequestColumn::kCached] : 0;
  }

  // Every pending request gets a row; the rows left go to requests in order, as many as each has pending. One warp, a
  // lane a request.
  static __device__ void assign(Scratch& scratch, int lane) {
    int wanted[kTurns], spare = kRows, first = 0;
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int b = 32 * i + lane;
      wanted[i] = b < kBatch ? pending(scratch.requests[b]) : 0;
      spare -= __popc(__ballot_sync(kLanes, wanted[i] > 0));
    }
#pragma unroll
    for (int i = 0; i < kTurns; ++i) {
      const int b = 32 * i + lane, more = max(wanted[i] - 1, 0), more_so_far = sum_up_to(more, lane);
      const int left = max(spare - (more_so_far - more), 0);  // by the requests before
      const int share = min(wanted[i], 1 + left), share_so_far = sum_up_to(share, lane);
      if (b < kBatch) {
        scratch.requests[b][RequestColumn::kFirstRow] = first + share_so_far - share;
        scratch.requests[b][RequestColumn::kNumRows] = share;
      }
      spare = max(spare - __shfl_sync(kLanes, more_so_far, 31), 0);
      first += __shfl_sync(kLanes, share_so_far, 31);
    }
    if (lane == 0) scratch.row_count = first;
  }

  // Of the lanes up to this one.
  static __device__ int sum_up_to(int value, int lane) {
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int before = __shfl_up_sync(kLanes, value, distance);
      if (lane >= distance) value += before;
    }
    return value;
  }

  static __device__ void write(const Context& context, const Scratch& scratch, const Task& task) {
    const int t = context.thread, row_count = scratch.row_count;
    if (t == 0) *operand<int>(task, kRowCount) = row_count;
    for (int i = t; i < kBatch * RequestColumn::kCount; i += kConsumers)
      operand<int>(task, kRequests)[i] = scratch.requests[i / RequestColumn::kCount][i % RequestColumn::kCount];
    for (int row = t; row < kRows; row += kConsumers) {
      int values[RowColumn::kCount] = {0, -1, 0, 0};
      if (row < row_count) fill_row(scratch, task, row, values);
#pragma unroll
      for (int c = 0; c < RowColumn::kCount; ++c)
        operand<int>(task, kRowState)[row * RowColumn::kCount + c] = values[c];
    }
  }

  // A request that has got a token goes on with it, and its row need not wait for the history.
  static __device__ void fill_row(const Scratch& scratch, const Task& task, int row, int (&values)[RowColumn::kCount]) {
    const int b = request_of(scratch, row), kept = scratch.kept[b];
    const int (&request)[RequestColumn::kCount] = scratch.requests[b];
    const int position = request[RequestColumn::kCached] + row - request[RequestColumn::kFirstRow];
    values[RowColumn::kToken] = kept == kNoToken ? operand<const int>(task, kHistory)[b * kMaxLength + position] : kept;
    values[RowColumn::kRequest] = b;
    values[RowColumn::kPosition] = position;
    values[RowColumn::kSamples] = position + 1 == request[RequestColumn::kKnown];
  }

  // Whose row it is: the last request that begins at `row` or before. Those without rows begin where the next one does.
  static __device__ int request_of(const Scratch& scratch, int row) {
    int b = 0;
#pragma unroll
    for (int step = kConsumers / 2; step > 0; step /= 2) {
      if (b + step < kBatch && scratch.requests[b + step][RequestColumn::kFirstRow] <= row) b += step;
    }
    return b;
  }
};

}  // namespace mpk
