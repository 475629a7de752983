// A product of computed, strided, batched matrices; a thread makes one element at a time.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

template <typename TaskBlock, typename Result, typename Y, typename Lhs, typename Rhs, typename LhsAxis,
          typename RhsAxis>
struct Matmul {
  enum Operand { kLhs, kRhs, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const TaskBlock block(task);
    const long long lhs_step = LhsAxis::step(task.row_stride[kLhs]), rhs_step = RhsAxis::step(task.row_stride[kRhs]);
    context.wait(task);
    for (int i = context.thread; i < block.rows * block.columns; i += kConsumers) {
      const auto at = block.template element<Result>(i / block.columns, i % block.columns);
      const auto* lhs = locate<Lhs>(task, kLhs, at);
      const auto* rhs = locate<Rhs>(task, kRhs, at);
      float sum = 0.0f;
      for (int k = 0; k < LhsAxis::kLength; ++k) sum += to_value(lhs[k * lhs_step]) * to_value(rhs[k * rhs_step]);
      store(locate<Y>(task, kY, at), sum);
    }
  }
};

}  // namespace mpk
