// What matrix.cuh of the device library says in PTX. A warp's part of a warpgroup's product depends on no other warp,
// so warps meet by themselves; products end at once.
#pragma once

#include "mpk/atoms.cuh"

namespace mpk {

inline int opaque(int value) { return value; }
inline float exp2_approximate(float x) { return std::exp2(x); }
inline Vector16 load_shared(const void* pointer) { return load_vector(pointer); }
inline unsigned long long swizzled_descriptor(const void* rows, int product) {
  return (shared_address(rows) + 32 * product) >> 4;
}

inline void wgmma_fence() { __syncwarp(); }
inline void wgmma_commit() {}
template <int kPending>
inline void wgmma_wait() {}
inline void pin(float (&)[64]) {}

// Column `k` of row `n` where a product finds it: the swizzle is of the address.
inline float swizzled(unsigned base, int n, int k) {
  const unsigned plain = base + n / 8 * 1024 + n % 8 * 128 + 2 * k;
  const unsigned address = plain ^ (plain >> 7 & 7) << 4;
  unsigned short bits;
  std::memcpy(&bits, __cvta_shared_to_generic(address), sizeof bits);
  return emulation::low_bf16(bits);
}

inline void wgmma_m64n128k16(float (&d)[64], const unsigned (&a)[4], unsigned long long b) {
  emulation::Warp& warp = emulation::warp();
  const int lane = emulation::lane(), g = lane / 4, q = lane % 4;
  std::memcpy(warp.in[lane], a, sizeof a);
  emulation::meet_warp([](emulation::Warp& w) { std::memcpy(w.in_all, w.in, sizeof w.in); });
  float left[2][16];  // rows g and g + 8 of A
  for (int k = 0; k < 16; ++k) {
    const unsigned* words = warp.in_all[4 * g + k % 8 / 2];
    for (int i = 0; i < 2; ++i) {
      const unsigned word = words[k / 8 * 2 + i];
      left[i][k] = k % 2 ? emulation::high_bf16(word) : emulation::low_bf16(word);
    }
  }
  const unsigned base = static_cast<unsigned>(b << 4);
  for (int j = 0; j < 16; ++j) {
    for (int c = 0; c < 2; ++c) {
      for (int k = 0; k < 16; ++k) {
        const float right = swizzled(base, 8 * j + 2 * q + c, k);
        for (int i = 0; i < 2; ++i) d[4 * j + 2 * i + c] += left[i][k] * right;
      }
    }
  }
}

// Lane (g, q) has words of row g; `element(row, column)` of what all lanes have.
inline unsigned transpose_8x8(unsigned word) {
  const int g = emulation::lane() / 4, q = emulation::lane() % 4;
  unsigned short halves[2];
  for (int i = 0; i < 2; ++i) {
    const unsigned other = emulation::shuffle(word, 4 * (2 * q + i) + g / 2);
    halves[i] = static_cast<unsigned short>(g % 2 ? other >> 16 : other);
  }
  return halves[0] | static_cast<unsigned>(halves[1]) << 16;
}

inline void load_matrices(unsigned (&d)[4], const void* row) {
  const int g = emulation::lane() / 4, q = emulation::lane() % 4;
  for (int matrix = 0; matrix < 4; ++matrix) {
    const auto address = emulation::shuffle(reinterpret_cast<unsigned long long>(row), 8 * matrix + g);
    std::memcpy(&d[matrix], reinterpret_cast<const char*>(address) + 4 * q, 4);
  }
}

inline void load_matrices_transposed(unsigned (&d)[4], const void* row) {
  unsigned plain[4];
  load_matrices(plain, row);
  for (int matrix = 0; matrix < 4; ++matrix) d[matrix] = transpose_8x8(plain[matrix]);
}

}  // namespace mpk
