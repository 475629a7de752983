// What the general task kinds share: blocks of a result, operands as strided tensors, expressions as types.
// Their numpy forms are in mpk_ir/tasks/strided.py and expression.py.
#pragma once

#include "mpk/math.cuh"
#include "mpk/runtime/context.cuh"

namespace mpk {

__device__ __forceinline__ float to_value(bf16 x) { return to_float(x); }
__device__ __forceinline__ float to_value(float x) { return x; }
__device__ __forceinline__ int to_value(int x) { return x; }

__device__ __forceinline__ void store(bf16* to, float x) { *to = from_float<bf16>(x); }
__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(int* to, float x) { *to = static_cast<int>(x); }
__device__ __forceinline__ void store(bf16* to, int x) { *to = from_float<bf16>(static_cast<float>(x)); }
__device__ __forceinline__ void store(float* to, int x) { *to = static_cast<float>(x); }
__device__ __forceinline__ void store(int* to, int x) { *to = x; }

// An element of the result: its index, and its row and column in the task's block.
template <int kRank>
struct Element {
  int index[kRank];
  int row, column;
};

template <int... kSizes>
struct Shape {
  static constexpr int kRank = sizeof...(kSizes);

  // Element `flat` of the result in row-major order.
  static __device__ __forceinline__ Element<kRank> element(unsigned flat, int row, int column) {
    constexpr unsigned sizes[] = {kSizes...};
    Element<kRank> at;
    at.row = row;
    at.column = column;
#pragma unroll
    for (int d = kRank - 1; d >= 0; --d) {
      at.index[d] = static_cast<int>(flat % sizes[d]);
      flat /= sizes[d];
    }
    return at;
  }
};

// A task's rows and columns of a result of kTotalRows by kTotalColumns.
template <int kRows, int kColumns, int kTotalRows, int kTotalColumns>
struct Block {
  int first_row, first_column, rows, columns;

  __device__ __forceinline__ explicit Block(const Task& task)
      : first_row(task.index[0] * kRows),
        first_column(task.index[1] * kColumns),
        rows(min(kRows, kTotalRows - task.index[0] * kRows)),
        columns(min(kColumns, kTotalColumns - task.index[1] * kColumns)) {}

  // Element (row, column) of the block.
  template <typename Shape>
  __device__ __forceinline__ auto element(int row, int column) const {
    const unsigned flat = static_cast<unsigned>(first_row + row) * kTotalColumns + first_column + column;
    return Shape::element(flat, row, column);
  }
};

// `length` elements that lie rows and columns apart.
template <int kLengthValue, int kRow, int kColumn>
struct Axis {
  static constexpr int kLength = kLengthValue;
  static __device__ __forceinline__ long long step(unsigned row_stride) {
    return static_cast<long long>(kRow) * row_stride + kColumn;
  }
};

// An operand whose box is the task's block, or one row or column of it.
template <typename T, int kRow, int kColumn>
struct Aligned {
  using Type = T;
  template <int kRank>
  static __device__ __forceinline__ size_t offset(const Element<kRank>& at, unsigned row_stride) {
    return static_cast<size_t>(kRow * at.row) * row_stride + kColumn * at.column;
  }
};

// An operand whose box is all of its buffer; steps are (rows, columns) for each dimension.
template <typename T, int kRow, int kColumn, int... kSteps>
struct Strided {
  using Type = T;
  template <int kRank>
  static __device__ __forceinline__ size_t offset(const Element<kRank>& at, unsigned row_stride) {
    constexpr int steps[] = {kSteps...};
    int row = kRow, column = kColumn;
#pragma unroll
    for (int d = 0; d < kRank; ++d) {
      row += at.index[d] * steps[2 * d];
      column += at.index[d] * steps[2 * d + 1];
    }
    return static_cast<size_t>(row) * row_stride + column;
  }
};

// The address of an element of operand `slot`.
template <typename Place, int kRank>
__device__ __forceinline__ typename Place::Type* locate(const Task& task, int slot, const Element<kRank>& at) {
  return operand<typename Place::Type>(task, slot) + Place::offset(at, task.row_stride[slot]);
}

// An id inside 0 .. length - 1; negative ones count from the end.
__device__ __forceinline__ int wrapped(int id, int length) {
  return max(0, min(id < 0 ? id + length : id, length - 1));
}

// Leaves of an expression: an operand, a float by its bits, an int.
template <int kSlot>
struct In {
  template <typename Load>
  static __device__ __forceinline__ auto of(const Load& load) {
    return load.template get<kSlot>();
  }
};
template <unsigned kBits>
struct F {
  template <typename Load>
  static __device__ __forceinline__ float of(const Load&) {
    return __uint_as_float(kBits);
  }
};
template <int kValue>
struct I {
  template <typename Load>
  static __device__ __forceinline__ int of(const Load&) {
    return kValue;
  }
};

template <typename Function, typename... Operands>
struct Apply {
  template <typename Load>
  static __device__ __forceinline__ auto of(const Load& load) {
    return Function::of(Operands::of(load)...);
  }
};

namespace fn {

struct Add {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a + b;
  }
};
struct Sub {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a - b;
  }
};
struct Mul {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a * b;
  }
};
struct Div {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a / b;
  }
};
struct Maximum {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a > b || a != a ? a : b;
  }
};
struct Minimum {
  template <typename T>
  static __device__ T of(T a, T b) {
    return a < b || a != a ? a : b;
  }
};
struct Pow {
  static __device__ float of(float a, float b) { return powf(a, b); }
  static __device__ int of(int a, int b) {
    int power = 1;
    for (; b > 0; --b) power *= a;
    return power;
  }
};
struct Remainder {
  static __device__ float of(float a, float b) { return a - b * floorf(a / b); }
  static __device__ int of(int a, int b) {
    const int rest = a % b;
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
  }
};
struct Neg {
  template <typename T>
  static __device__ T of(T a) {
    return -a;
  }
};
struct Exp {
  static __device__ float of(float a) { return expf(a); }
};
struct Rsqrt {
  static __device__ float of(float a) { return rsqrtf(a); }
};
struct Sigmoid {
  static __device__ float of(float a) { return 1.0f / (1.0f + expf(-a)); }
};
struct Tanh {
  static __device__ float of(float a) { return tanhf(a); }
};
struct Sqrt {
  static __device__ float of(float a) { return sqrtf(a); }
};
struct Log {
  static __device__ float of(float a) { return logf(a); }
};
struct Sin {
  static __device__ float of(float a) { return sinf(a); }
};
struct Cos {
  static __device__ float of(float a) { return cosf(a); }
};
struct Erf {
  static __device__ float of(float a) { return erff(a); }
};
struct Abs {
  template <typename T>
  static __device__ T of(T a) {
    return a < T(0) ? -a : a;
  }
};
struct Floor {
  static __device__ float of(float a) { return floorf(a); }
};
struct Ceil {
  static __device__ float of(float a) { return ceilf(a); }
};
struct Silu {
  static __device__ float of(float a) { return a / (1.0f + expf(-a)); }
};
struct Gelu {
  static __device__ float of(float a) { return 0.5f * a * (1.0f + erff(a * 0.7071067811865476f)); }
};
struct GeluTanh {
  static __device__ float of(float a) { return gelu_tanh(a); }
};
struct Eq {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a == b;
  }
};
struct Ne {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a != b;
  }
};
struct Lt {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a < b;
  }
};
struct Le {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a <= b;
  }
};
struct Gt {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a > b;
  }
};
struct Ge {
  template <typename T>
  static __device__ int of(T a, T b) {
    return a >= b;
  }
};
struct Select {
  template <typename T>
  static __device__ T of(int condition, T a, T b) {
    return condition != 0 ? a : b;
  }
};
struct ToInt {
  template <typename T>
  static __device__ int of(T a) {
    return static_cast<int>(a);
  }
};
struct ToFloat {
  template <typename T>
  static __device__ float of(T a) {
    return static_cast<float>(a);
  }
};

}  // namespace fn

}  // namespace mpk
