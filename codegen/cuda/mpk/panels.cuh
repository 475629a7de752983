// Activations in panels of rows (core/memory.py: ROW_PANELS_8): what lanes of a warp read together lies together.
//
// A warp reads 16 bytes of each of 8 rows at 4 neighbouring places. Row by row these are halves of 8 lines, and a load
// of rows that all SMs want at once takes twice as long as one of whole lines (docs/performance.md).
#pragma once

namespace mpk {

constexpr int kPanelColumns = 8;  // of a row, side by side

// Where element (`row`, `column`) of a box lies, counted from the box's first; with kPanel = 1 row by row.
template <int kPanel>
__device__ __forceinline__ size_t element_offset(int row, int column, unsigned row_stride) {
  if constexpr (kPanel == 1) return static_cast<size_t>(row) * row_stride + column;
  return static_cast<size_t>(row / kPanel * kPanel) * row_stride + row % kPanel * kPanelColumns +
         column / kPanelColumns * (kPanelColumns * kPanel) + column % kPanelColumns;
}

}  // namespace mpk
