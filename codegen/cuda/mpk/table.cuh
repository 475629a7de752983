// Rows of an embedding table, which may be packed as the weight of the output head (see tasks/linear.cuh).
#pragma once

#include "mpk/panels.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

// Columns `column` .. `column + 7` of a row.
template <bool kPacked>
__device__ __forceinline__ Vector16 load_columns(const bf16* table, int row, int column, unsigned row_stride) {
  if constexpr (!kPacked) return load_vector(table + static_cast<size_t>(row) * row_stride + column);
  const bf16* block = table + static_cast<size_t>(row / 16) * 16 * row_stride + column / 32 * 512;
  const unsigned* words = reinterpret_cast<const unsigned*>(block) + row % 8 * 16 + column % 32 / 8 * 4 + row / 8 % 2;
  return {words[0], words[2], words[128], words[130]};
}

constexpr int kLookUps = 8;  // vectors that a thread has under way, at most

// Publishes the table rows of the ids in a task's block of rows and kColumns columns, of whose rows `rows` are active
// and `touched` were, in this step or the one before; `row_of` says which row of the table a token has, kNoToken:
// zeros. A vector of 8 columns takes two trips to memory, one for the token and one for the columns; of all that a
// thread has under way together it makes no more.
template <typename Body, int kColumns, int kRows, bool kPacked, int kYPanel, typename RowOf>
__device__ __forceinline__ void publish_lookup(const Context& context, const Task& task, int rows, int touched,
                                               RowOf row_of) {
  static_assert(kColumns % 8 == 0, "columns are taken by 16 bytes");
  constexpr int kVectors = kColumns / 8;  // of a row
  constexpr int kAtOnce = min_of(ceil_div(kRows * kVectors, kConsumers), kLookUps);
  const bf16* table = operand<const bf16>(task, Body::kTable);
  const int first_column = task.index[1] * kColumns;
  for (int begin = context.thread; begin < touched * kVectors; begin += kAtOnce * kConsumers) {
    int token[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = (begin + i * kConsumers) / kVectors;
      const int* id = operand<const int>(task, Body::kIds) + row * task.row_stride[Body::kIds] + RowColumn::kToken;
      token[i] = row < rows ? row_of(*id) : kNoToken;
    }
    Vector16 values[kAtOnce] = {};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int column = first_column + (begin + i * kConsumers) % kVectors * 8;
      if (token[i] != kNoToken)
        values[i] = load_columns<kPacked>(table, token[i], column, task.row_stride[Body::kTable]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = (begin + i * kConsumers) / kVectors, column = (begin + i * kConsumers) % kVectors * 8;
      if (row >= touched) break;
      const size_t offset = element_offset<kYPanel>(row, column, task.row_stride[Body::kY]);
      context.publish(task, Body::kY, offset / 8, values[i], row < rows);
    }
  }
}

}  // namespace mpk
