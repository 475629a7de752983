// CUDA's words for a host compiler: every thread of a launch is a fiber, all fibers share one thread of the host. A
// fiber runs until it must wait for others (of its warp, at a barrier) or has polled in vain; then the next one runs.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
using std::max;
using std::min;

struct float2 {
  float x, y;
};
struct Index {
  unsigned x, y, z;
};

namespace emulation {

constexpr int kWarpLanes = 32;
constexpr unsigned kSharedBase = 1024;  // as on the GPU: the system keeps what lies before

// Fibers that wait for the last of `expected`.
struct Meeting {
  int arrived = 0;
  std::vector<int> waiting;
};

struct Warp {
  Meeting meeting;
  unsigned in[kWarpLanes][8], out[kWarpLanes][8];  // operands and results of what a warp does together
  unsigned in_all[kWarpLanes][8];                  // operands, once all are there
};

struct Block {
  std::unique_ptr<char[]> memory;
  char* shared;
  std::vector<Warp> warps;
  Meeting barriers[16];
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Index thread, block;
  Block* home;
  bool done = false;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::vector<Block> blocks;
  std::deque<int> ready;
  std::deque<std::function<void()>> copies;  // of the copy engine, under way
  std::mt19937 random;
  bool shuffles = false;
  int current = 0;
  ucontext_t scheduler;
  unsigned num_blocks = 0, num_threads = 0;
  unsigned long long ticks = 0;
  size_t multicast = 0;  // an address that stands for the places of all arenas
  std::vector<size_t> arenas;
};
inline Machine machine;

inline Fiber& fiber() { return machine.fibers[machine.current]; }
inline int lane() { return fiber().thread.x % kWarpLanes; }
inline Warp& warp() { return fiber().home->warps[fiber().thread.x / kWarpLanes]; }

inline void suspend() {
  ++machine.ticks;
  swapcontext(&fiber().context, &machine.scheduler);
}

// Lets the others run.
inline void yield() {
  machine.ready.push_back(machine.current);
  suspend();
}

// The last of `expected` fibers does `last` and wakes the others. Who may be polling goes behind everybody else.
template <typename Last>
inline void meet(Meeting& meeting, int expected, bool polls, Last last) {
  if (++meeting.arrived < expected) {
    meeting.waiting.push_back(machine.current);
    return suspend();
  }
  last();
  meeting.arrived = 0;
  for (int other : meeting.waiting) {
    if (polls) {
      machine.ready.push_back(other);
    } else {
      machine.ready.push_front(other);
    }
  }
  meeting.waiting.clear();
  if (polls) yield();
}

template <typename Last>
inline void meet_warp(Last last, bool polls = false) {
  Warp& all = warp();
  meet(all.meeting, kWarpLanes, polls, [&] { last(all); });
}

inline void barrier(int id, int threads) {
  meet(fiber().home->barriers[id], threads, true, [] {});
}

template <typename T>
inline T shuffle(T value, int from) {
  Warp& all = warp();
  std::memcpy(all.in[lane()], &value, sizeof(T));
  meet_warp([](Warp& w) { std::memcpy(w.out, w.in, sizeof w.in); });
  std::memcpy(&value, all.out[from], sizeof(T));
  return value;
}

inline unsigned vote(bool mine) {
  Warp& all = warp();
  all.in[lane()][0] = mine;
  meet_warp(
      [](Warp& w) {
        unsigned mask = 0;
        for (int i = 0; i < kWarpLanes; ++i) mask |= w.in[i][0] << i;
        for (int i = 0; i < kWarpLanes; ++i) w.out[i][0] = mask;
      },
      true);
  return all.out[lane()][0];
}

inline float low_bf16(unsigned word) { return std::bit_cast<float>(word << 16); }
inline float high_bf16(unsigned word) { return std::bit_cast<float>(word & 0xFFFF0000u); }

// To nearest, ties to even; NaN is the one that the hardware makes.
inline unsigned round_to_bf16(float value) {
  const unsigned word = std::bit_cast<unsigned>(value);
  if (value != value) return 0x7FFF;
  return (word + 0x7FFF + (word >> 16 & 1)) >> 16;
}
inline unsigned pack_bf16(float low, float high) { return round_to_bf16(low) | round_to_bf16(high) << 16; }

}  // namespace emulation

#define threadIdx (emulation::fiber().thread)
#define blockIdx (emulation::fiber().block)
#define gridDim (Index{emulation::machine.num_blocks, 1, 1})
#define blockDim (Index{emulation::machine.num_threads, 1, 1})

inline void __syncwarp() {
  emulation::meet_warp([](emulation::Warp&) {});
}
inline void __syncthreads() { emulation::barrier(0, blockDim.x); }
inline bool __any_sync(unsigned, bool mine) { return emulation::vote(mine) != 0; }
inline bool __all_sync(unsigned, bool mine) { return emulation::vote(mine) == 0xFFFFFFFFu; }
inline unsigned __ballot_sync(unsigned, bool mine) { return emulation::vote(mine); }
template <typename T>
inline T __shfl_sync(unsigned, T value, int from) {
  return emulation::shuffle(value, from % emulation::kWarpLanes);
}
template <typename T>
inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::shuffle(value, emulation::lane() ^ mask);
}
template <typename T>
inline T __shfl_up_sync(unsigned, T value, int distance) {
  return emulation::shuffle(value, emulation::lane() >= distance ? emulation::lane() - distance : emulation::lane());
}
template <typename T>
inline T __shfl_down_sync(unsigned, T value, int distance) {
  const int from = emulation::lane() + distance;
  return emulation::shuffle(value, from < emulation::kWarpLanes ? from : emulation::lane());
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}
inline void __nanosleep(unsigned) { emulation::yield(); }
inline void __trap() {
  std::fprintf(stderr, "trap in block %u, thread %u\n", blockIdx.x, threadIdx.x);
  std::abort();
}
inline long long clock64() {  // who looks at the clock polls
  emulation::yield();
  return emulation::machine.ticks;
}

inline float __uint_as_float(unsigned word) { return std::bit_cast<float>(word); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __expf(float value) { return expf(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline int __popc(unsigned word) { return std::popcount(word); }
inline int __ffs(int word) { return ffs(word); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
  const unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(both >> (selector >> 4 * i & 7) * 8 & 0xFF) << 8 * i;
  return result;
}
template <typename T>
inline T __ldg(const T* pointer) {
  return *pointer;
}
template <typename T>
inline T atomicAdd(T* pointer, T value) {
  const T before = *pointer;
  *pointer += value;
  return before;
}

inline void* __cvta_shared_to_generic(size_t address) {
  return emulation::fiber().home->shared + (address - emulation::kSharedBase);
}
inline size_t __cvta_generic_to_shared(const void* pointer) {
  return static_cast<const char*>(pointer) - emulation::fiber().home->shared + emulation::kSharedBase;
}
