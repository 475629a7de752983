// The chunks of an argmax put together; a warp takes a row.
#pragma once

#include "mpk/best.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

// Chunks may come from several ranks, kRankChunks from each; columns then count from the first of their rank's
// kRankColumns.
template <int kChunks, int kRows, int kRankChunks = kChunks, int kRankColumns = 0>
struct Select {
  enum Operand { kValue, kColumn, kRowCount, kY };

  static constexpr int kPerLane = ceil_div(kChunks, 32);

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int rows = context.rows_from(0, kRows), touched = context.touched_rows_from(0, kRows);
    context.wait(task);
    context.sync();  // all warps have left the tasks before: what is published here tells so
    for (int row = context.warp(); row < touched; row += kConsumerWarps) {
      const int column = row < rows ? best_column(context, task, row) : 0;
      if (context.lane() == 0) context.publish(task, kY, row, static_cast<unsigned>(column), row < rows);
    }
  }

 private:
  static __device__ int best_column(const Context& context, const Task& task, int row) {
    unsigned values[kPerLane], columns[kPerLane];
    auto wanted = [&](int i) { return context.lane() + 32 * i < kChunks; };
    const Places value_at{wanted, [&](int i) { return word_at(context, task, kValue, row, i); }};
    const Places column_at{wanted, [&](int i) { return word_at(context, task, kColumn, row, i); }};
    context.begin_load(values, value_at);
    context.begin_load(columns, column_at);
    context.end_load(task, kValue, values, value_at);
    context.end_load(task, kColumn, columns, column_at);
    context.stamp(ProfilePhase::kReady);
    float value = kNegativeInfinity;
    int column = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (context.lane() + 32 * i < kChunks) {
        const int first = (context.lane() + 32 * i) / kRankChunks * kRankColumns;
        keep_best(value, column, __uint_as_float(values[i]), first + static_cast<int>(columns[i]));
      }
    }
    best_of_lanes(value, column);
    return column;
  }

  static __device__ __forceinline__ const unsigned* word_at(const Context& context, const Task& task, Operand slot,
                                                            int row, int i) {
    const int chunk = context.lane() + 32 * i;
    return context.current<const unsigned>(task, slot) + static_cast<size_t>(row) * task.row_stride[slot] + chunk;
  }
};

}  // namespace mpk
