// Of some rows of a qkv product: queries normed and rotated in place, keys too and, with values, stored in the caches.
// A warp takes some neighbouring heads of a row at a time.
#pragma once

#include "mpk/math.cuh"
#include "mpk/matrix.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

template <int kHeads, int kKvHeads, int kHeadDim, int kPageSize, int kRows, bool kNorm, bool kRotary>
struct RopeAppend {
  enum Operand { kQkv, kKCache, kVCache, kRowState, kPageTable, kQNorm, kKNorm, kInvFreq, kRowCount };

  static constexpr int kAllHeads = kHeads + 2 * kKvHeads;
  static constexpr int kAtOnce = 6;                                    // heads that a warp loads together
  static constexpr int kRowWarps = max_of(kConsumerWarps / kRows, 1);  // that share a row

  static __device__ __forceinline__ void run(Context& context, const Task& task, float eps, float scaling) {
    context.thread = opaque(context.thread);
    const int rows = context.rows_from(task.index[0] * kRows, kRows);
    context.wait(task);
    for (int row = context.warp() / kRowWarps; row < rows; row += kConsumerWarps / kRowWarps) {
      const int* state = operand<const int>(task, kRowState) + row * RowColumn::kCount;
      const int position = state[RowColumn::kPosition];
      Rotation<kHeadDim> rotation;
      if constexpr (kRotary) rotation.prepare(operand<const float>(task, kInvFreq), position, scaling, context.lane());
      const size_t slot = slot_of(task, state[RowColumn::kRequest], position);
      bf16* qkv = operand<bf16>(task, kQkv) + static_cast<size_t>(row) * task.row_stride[kQkv];
#pragma unroll 1
      for (int first = context.warp() % kRowWarps * kAtOnce; first < kAllHeads; first += kRowWarps * kAtOnce) {
        prepare(context, task, qkv, first, rotation, slot, eps);
      }
    }
    fence_proxy_async_global();  // the copy engine reads caches in the steps that follow
  }

 private:
  // Heads of a row, from `first` on.
  static __device__ __forceinline__ void prepare(const Context& context, const Task& task, bf16* qkv, int first,
                                                 const Rotation<kHeadDim>& rotation, size_t slot, float eps) {
    const int lane = context.lane();
    HeadPairs<kHeadDim> values[kAtOnce];
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if (first + j < kAllHeads) values[j].load(qkv + (first + j) * kHeadDim, lane);
    }
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      const int head = first + j;
      if (head >= kAllHeads) break;
      if (head < kHeads + kKvHeads) {
        if constexpr (kNorm) {
          HeadPairs<kHeadDim> weights;
          weights.load(operand<const bf16>(task, head < kHeads ? kQNorm : kKNorm), lane);
          values[j].norm(weights, eps);
        }
        if constexpr (kRotary) values[j].rotate(rotation);
      }
      values[j].store(head < kHeads ? qkv + head * kHeadDim : place_of(task, head - kHeads, slot), 1.0f, lane);
    }
  }

  // Of a position in a cache: that of KV head 0.
  static __device__ __forceinline__ size_t slot_of(const Task& task, int request, int position) {
    const int page = operand<const int>(task, kPageTable)[request * task.row_stride[kPageTable] + position / kPageSize];
    return static_cast<size_t>(page) * kKvHeads * kPageSize * kHeadDim + position % kPageSize * kHeadDim;
  }

  // Keys of all KV heads come first, then their values.
  static __device__ __forceinline__ bf16* place_of(const Task& task, int head, size_t slot) {
    const bool key = head < kKvHeads;
    return operand<bf16>(task, key ? kKCache : kVCache) + slot + (key ? head : head - kKvHeads) * kPageSize * kHeadDim;
  }
};

}  // namespace mpk
