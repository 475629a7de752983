// Rows of a weight to the order in which products take it (Layout.MMA_ROWS_16), each element read once, written once.
//
// The two halves of a tile, 8 rows each, come from two places, `low` and `high`, both `tile_rows` rows further on for
// the next tile. Of one weight, high is 8 rows behind low and tile_rows 16; of two that are dealt in turn, 8 rows of
// each, they are those two, and tile_rows is 8. A row has `blocks` blocks of 32 elements of two bytes.
#pragma once

struct alignas(16) Eight {
  unsigned pair[4];
};

// Element 8 quad + 4 product + 2 word + p of a row of a half of a block lies at [product][row][quad][word][half][p].
extern "C" __global__ void mpk_pack(const Eight* low, const Eight* high, Eight* packed, unsigned tiles, unsigned blocks,
                                    unsigned tile_rows) {
  constexpr unsigned kHalfRows = 8, kQuads = 4, kLanes = kHalfRows * kQuads;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < tiles * blocks * kLanes; i += gridDim.x * blockDim.x) {
    const unsigned quad = i % kQuads, row = i / kQuads % kHalfRows;
    const unsigned tile_block = i / kLanes, block = tile_block % blocks, tile = tile_block / blocks;
    const unsigned from = ((tile * tile_rows + row) * blocks + block) * kQuads + quad;
    const Eight a = low[from], b = high[from];
    Eight* to = packed + tile_block * (2 * kLanes) + row * kQuads + quad;
    to[0] = {a.pair[0], b.pair[0], a.pair[1], b.pair[1]};
    to[kLanes] = {a.pair[2], b.pair[2], a.pair[3], b.pair[3]};
  }
}
