// The end of a step: keeps the chosen tokens and assigns the rows of the next step (core/requests.py says how).
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kBatch, int kRows, int kMaxLength, bool kByRequest, int... kStopTokens>
struct Advance {
  enum Operand { kSampled, kHistory, kRequests, kRowState, kRowCount };

  struct Scratch {
    int requests[kBatch][RequestColumn::kCount];
  };
  static constexpr int kSampledRows = kByRequest ? kBatch : kRows;
  static_assert(kBatch <= kRows && kBatch <= kConsumers, "Advance: one row and one thread a request");

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    Scratch& scratch = context.next_scratch<Scratch>();
    context.wait(task);
    keep_tokens(context, scratch, task);
    context.sync();
    if (context.thread == 0) assign(scratch, task);
    context.sync();
    write_rows(context, scratch, task);
  }

 private:
  // One thread a request; only its last row can carry a token to keep.
  static __device__ void keep_tokens(Context& context, Scratch& scratch, const Task& task) {
    const int b = context.thread;
    const int sampled = load_sampled(context, task, b);
    if (b >= kBatch) return;
    int (&request)[RequestColumn::kCount] = scratch.requests[b];
    const int* state = operand<const int>(task, kRequests) + b * RequestColumn::kCount;
    for (int c = 0; c < RequestColumn::kCount; ++c) request[c] = state[c];
    const int count = request[RequestColumn::kNumRows];
    if (count == 0) return;
    const int row = last_row(task, b);
    request[RequestColumn::kCached] += count;
    if (!operand<const int>(task, kRowState)[row * RowColumn::kCount + RowColumn::kSamples]) return;
    operand<int>(task, kHistory)[b * kMaxLength + request[RequestColumn::kKnown]++] = sampled;
    if ((false || ... || (sampled == kStopTokens)))
      request[RequestColumn::kStopLength] = request[RequestColumn::kKnown];
  }

  static __device__ int last_row(const Task& task, int b) {
    const int* request = operand<const int>(task, kRequests) + b * RequestColumn::kCount;
    return request[RequestColumn::kFirstRow] + request[RequestColumn::kNumRows] - 1;
  }

  // Where the token of request `b` stands: in its last row, or behind those of the requests before it that have rows.
  static __device__ int sampled_row(const Task& task, int b) {
    if constexpr (!kByRequest) return last_row(task, b);
    int before = 0;
    for (int i = 0; i < b; ++i)
      before += operand<const int>(task, kRequests)[i * RequestColumn::kCount + RequestColumn::kNumRows] > 0;
    return before;
  }

  // What was chosen for the last row of request `b`; all lanes of a warp wait together. The threads see all rows among
  // them: then nobody reads what this task writes any more.
  static __device__ int load_sampled(const Context& context, const Task& task, int b) {
    const bool active =
        b < kBatch && operand<const int>(task, kRequests)[b * RequestColumn::kCount + RequestColumn::kNumRows] > 0;
    const unsigned* sampled = context.current<const unsigned>(task, kSampled);
    const int rows = context.rows_from(0, kSampledRows), last = active ? sampled_row(task, b) : 0;
    auto row_of = [&](int i) { return i > 0 ? context.thread + (i - 1) * kConsumers : last; };
    unsigned token[1 + ceil_div(kSampledRows, kConsumers)];
    context.load(
        task, kSampled, token,
        Places{[&](int i) { return i > 0 ? row_of(i) < rows : active; }, [&](int i) { return sampled + row_of(i); }});
    context.stamp(ProfilePhase::kReady);
    return static_cast<int>(token[0]);
  }

  static __device__ int pending(const int (&request)[RequestColumn::kCount]) {
    const bool active = request[RequestColumn::kKnown] < request[RequestColumn::kStopLength];
    return active ? request[RequestColumn::kKnown] - request[RequestColumn::kCached] : 0;
  }

  // Every pending request gets a row; the rows left go to requests in order, as many as each has pending.
  static __device__ void assign(Scratch& scratch, const Task& task) {
    int spare = kRows, first = 0;
    for (int b = 0; b < kBatch; ++b) spare -= pending(scratch.requests[b]) > 0;
    for (int b = 0; b < kBatch; ++b) {
      const int wanted = pending(scratch.requests[b]);
      const int extra = wanted > 0 ? min(spare, wanted - 1) : 0;
      const int share = wanted > 0 ? 1 + extra : 0;
      spare -= extra;
      scratch.requests[b][RequestColumn::kFirstRow] = first;
      scratch.requests[b][RequestColumn::kNumRows] = share;
      first += share;
    }
    *operand<int>(task, kRowCount) = first;
  }

  static __device__ void write_rows(Context& context, const Scratch& scratch, const Task& task) {
    const int t = context.thread;
    for (int i = t; i < kBatch * RequestColumn::kCount; i += kConsumers) {
      operand<int>(task, kRequests)[i] = scratch.requests[i / RequestColumn::kCount][i % RequestColumn::kCount];
    }
    for (int row = t; row < kRows; row += kConsumers) {
      int values[RowColumn::kCount] = {0, -1, 0, 0};
      for (int b = 0; b < kBatch; ++b) {
        const int (&request)[RequestColumn::kCount] = scratch.requests[b];
        const int offset = row - request[RequestColumn::kFirstRow];
        if (offset < 0 || offset >= request[RequestColumn::kNumRows]) continue;
        const int position = request[RequestColumn::kCached] + offset;
        values[RowColumn::kToken] = operand<const int>(task, kHistory)[b * kMaxLength + position];
        values[RowColumn::kRequest] = b;
        values[RowColumn::kPosition] = position;
        values[RowColumn::kSamples] = position + 1 == request[RequestColumn::kKnown];
      }
      for (int c = 0; c < RowColumn::kCount; ++c)
        operand<int>(task, kRowState)[row * RowColumn::kCount + c] = values[c];
    }
  }
};

}  // namespace mpk
