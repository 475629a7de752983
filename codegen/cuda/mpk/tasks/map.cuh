// An elementwise expression of strided operands.
#pragma once

#include "mpk/strided.cuh"

namespace mpk {

// Type number kNumber of a list.
template <int kNumber, typename First, typename... Rest>
struct Nth {
  using Type = typename Nth<kNumber - 1, Rest...>::Type;
};
template <typename First, typename... Rest>
struct Nth<0, First, Rest...> {
  using Type = First;
};

template <typename Expression, typename TaskBlock, typename Result, typename Y, typename... Inputs>
struct Map {
  enum Operand { kIn0, kIn1, kIn2, kIn3, kIn4, kIn5, kIn6, kIn7, kY };

  // Reads the operands of one element as the expression asks for them.
  struct Load {
    const Task& task;
    const Element<Result::kRank>& at;

    template <int kSlot>
    __device__ __forceinline__ auto get() const {
      return to_value(*locate<typename Nth<kSlot, Inputs...>::Type>(task, kIn0 + kSlot, at));
    }
  };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const TaskBlock block(task);
    context.wait(task);
    for (int i = context.thread; i < block.rows * block.columns; i += kConsumers) {
      const auto at = block.template element<Result>(i / block.columns, i % block.columns);
      store(locate<Y>(task, kY, at), Expression::of(Load{task, at}));
    }
  }
};

}  // namespace mpk
