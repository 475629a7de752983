// Storage types and 16-byte vectors. NVRTC has no host headers, so the little that is needed stands here.
#pragma once

namespace mpk {

struct bf16 {
  unsigned short bits;
};

struct alignas(16) Vector16 {
  unsigned word[4];
};

__device__ __forceinline__ float to_float(bf16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}
__device__ __forceinline__ float to_float(float value) { return value; }

// Rounds to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
  unsigned packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

template <typename T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float value) {
  return {static_cast<unsigned short>(pack_bf16(value, 0.0f) & 0xFFFFu)};
}

__device__ __forceinline__ float low_half(unsigned word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float high_half(unsigned word) { return __uint_as_float(word & 0xFFFF0000u); }

// The low, or the high, halves of two words.
__device__ __forceinline__ unsigned low_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x5410); }
__device__ __forceinline__ unsigned high_halves(unsigned a, unsigned b) { return __byte_perm(a, b, 0x7632); }

// Eight bf16 as floats.
__device__ __forceinline__ void unpack(const Vector16& vector, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = low_half(vector.word[i]);
    out[2 * i + 1] = high_half(vector.word[i]);
  }
}

__device__ __forceinline__ Vector16 load_vector(const void* pointer) { return *static_cast<const Vector16*>(pointer); }

// Loads two vectors, `distance` bytes apart, the second one first where `swapped` says so: of lanes that read different
// rows of shared memory from the same bank, half then read from another.
__device__ __forceinline__ void load_pair(const char* source, int distance, bool swapped, Vector16& first,
                                          Vector16& second) {
  const Vector16 one = load_vector(source + (swapped ? distance : 0));
  const Vector16 other = load_vector(source + (swapped ? 0 : distance));
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    first.word[j] = swapped ? other.word[j] : one.word[j];
    second.word[j] = swapped ? one.word[j] : other.word[j];
  }
}

__host__ __device__ constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
__host__ __device__ constexpr int ceil_div(int value, int divisor) { return (value + divisor - 1) / divisor; }
__host__ __device__ constexpr int min_of(int a, int b) { return a < b ? a : b; }
__host__ __device__ constexpr int max_of(int a, int b) { return a > b ? a : b; }

__host__ __device__ constexpr int largest_divisor(int total, int most) {
  int share = min_of(total, max_of(most, 1));
  while (total % share) --share;
  return share;
}

// The largest divisor of `total` up to `most`, if it is more than half of that; else `most`.
__host__ __device__ constexpr int even_share(int total, int most) {
  const int share = largest_divisor(total, most);
  return 2 * share > min_of(total, most) ? share : min_of(total, most);
}

constexpr int kNoToken = -1;
constexpr float kNegativeInfinity = -1e30f;  // finite, so that differences of two are no NaN

}  // namespace mpk
