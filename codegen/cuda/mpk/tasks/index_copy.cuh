// Slices of an operand replaced in place, chosen by ids.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

template <typename TaskBlock, typename Moved, typename X, typename Source, typename Ids, typename IdAxis>
struct IndexCopy {
  enum Operand { kSource, kIds, kX };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const TaskBlock block(task);
    const long long step = IdAxis::step(task.row_stride[kX]);
    context.wait(task);
    for (int i = context.thread; i < block.rows * block.columns; i += kConsumers) {
      const auto at = block.template element<Moved>(i / block.columns, i % block.columns);
      const int id = wrapped(*locate<Ids>(task, kIds, at), IdAxis::kLength);
      store(locate<X>(task, kX, at) + id * step, to_value(*locate<Source>(task, kSource, at)));
    }
  }
};

}  // namespace mpk
