// Delays that look random: they make warps, blocks and ranks meet in orders that a quiet GPU hardly ever shows. Built
// in with `lower-to-cuda{jitter_ns=N}` alone. A delay depends on the task, the step since the counters were zeroed, the
// warp, the rank and the moment, so that a run with delays can be repeated.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

namespace Moment {
enum Value : unsigned { kBeforeTask, kBeforeSignal, kBeforeLoad };
}

// The finalizer of MurmurHash3 (Austin Appleby, public domain): every bit of `value` changes about half of all bits.
__device__ __forceinline__ unsigned mixed(unsigned value) {
  value = (value ^ value >> 16) * 0x85EBCA6Bu;
  value = (value ^ value >> 13) * 0xC2B2AE35u;
  return value ^ value >> 16;
}

// One time in four the calling warp sleeps, for as long as kJitterNs at the most (the hardware may take twice that).
__device__ __forceinline__ void jitter(Moment::Value moment, int task, int step) {
  if constexpr (kJitterNs > 0) {
    const Launch& launch = block_shared().launch;
    const unsigned who = (launch.rank * 32 + threadIdx.x / 32) * 4 + moment;
    const unsigned random = mixed(mixed(mixed(task) + launch.first_step + step) + who);
    if (random % 4 == 0) __nanosleep(random / 4 % kJitterNs);
  }
}

}  // namespace mpk
