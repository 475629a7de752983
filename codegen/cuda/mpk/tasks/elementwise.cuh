// A function of one or two operands, element by element.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

namespace functor {

struct Binary {
  static constexpr bool kBinary = true;
};
struct Unary {
  static constexpr bool kBinary = false;
};

struct Add : Binary {
  static __device__ float apply(float a, float b) { return a + b; }
};
struct Sub : Binary {
  static __device__ float apply(float a, float b) { return a - b; }
};
struct Mul : Binary {
  static __device__ float apply(float a, float b) { return a * b; }
};
struct Div : Binary {
  static __device__ float apply(float a, float b) { return a / b; }
};
struct SiluMul : Binary {
  static __device__ float apply(float gate, float up) { return silu(gate) * up; }
};
struct GeluTanhMul : Binary {
  static __device__ float apply(float gate, float up) { return gelu_tanh(gate) * up; }
};
struct Silu : Unary {
  static __device__ float apply(float a, float) { return silu(a); }
};
struct GeluTanh : Unary {
  static __device__ float apply(float a, float) { return gelu_tanh(a); }
};
struct Exp : Unary {
  static __device__ float apply(float a, float) { return __expf(a); }
};
struct Neg : Unary {
  static __device__ float apply(float a, float) { return -a; }
};

}  // namespace functor

template <typename Function, int kColumns, int kRows, int kTotal>
struct Elementwise {
  enum Operand { kA, kB, kRowCount, kY };

  static __device__ __forceinline__ void run(Context& context, const Task& task) {
    const int* row_count = operand<const int>(task, kRowCount);
    const int rows = row_count ? *row_count : kRows;
    const int columns = min(kColumns, kTotal - task.index[0] * kColumns);
    context.wait(task);
    for (int i = context.thread; i < rows * columns; i += kConsumers) {
      const int row = i / columns, column = i % columns;
      const float a = at(task, kA, row, column);
      const float b = Function::kBinary ? at(task, kB, row, column) : 0.0f;
      operand<bf16>(task, kY)[static_cast<size_t>(row) * task.row_stride[kY] + column] =
          from_float<bf16>(Function::apply(a, b));
    }
  }

 private:
  static __device__ __forceinline__ float at(const Task& task, int slot, int row, int column) {
    return to_float(operand<const bf16>(task, slot)[static_cast<size_t>(row) * task.row_stride[slot] + column]);
  }
};

}  // namespace mpk
