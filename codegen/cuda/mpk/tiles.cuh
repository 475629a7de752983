// The tiles of a packed weight, and what a lane holds of them and of the activations that they are multiplied by.
#pragma once

#include "mpk/runtime/context.cuh"

namespace mpk {

constexpr int kTileRows = 16;
constexpr int kBlockColumns = 32;
constexpr int kProducts = kBlockColumns / 16;      // of a block
constexpr int kProductBytes = 2 * kTileRows * 16;  // of W
constexpr int kStageColumns = kStageBytes / (2 * kTileRows);
constexpr int kWarpBlocks = kStageColumns / kBlockColumns / kConsumerWarps;  // of a stage that a warp multiplies
constexpr int kMostSegmentVectors = 12;                                      // of x that a lane keeps in registers
constexpr int kMostGroupVectors = 20;                                        // of x and of the weights taken at once
constexpr int kMostEarlyVectors = 16;                                        // of x and of weights taken before it

constexpr int kStageVectors = kWarpBlocks * kProducts;  // of weights that a lane takes of a stage

// Where rows of x lie: one behind another.
struct PlainRows {
  static constexpr bool kMerges = false;
};

}  // namespace mpk
