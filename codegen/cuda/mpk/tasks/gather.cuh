// Slices of an operand chosen by ids.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

template <typename TaskBlock, typename Result, typename Y, typename X, typename Ids, typename IdAxis>
struct Gather {
  enum Operand { kX, kIds, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const TaskBlock block(task);
    const long long step = IdAxis::step(task.row_stride[kX]);
    context.wait(task);
    for (int i = context.thread; i < block.rows * block.columns; i += kConsumers) {
      const auto at = block.template element<Result>(i / block.columns, i % block.columns);
      const int id = wrapped(*locate<Ids>(task, kIds, at), IdAxis::kLength);
      store(locate<Y>(task, kY, at), to_value(locate<X>(task, kX, at)[id * step]));
    }
  }
};

}  // namespace mpk
