// RUN: mpk-opt %s -p 'tg-fuse,tile{target=sim},sm-panel-rows' --split-input-file | filecheck %s
// RUN: mpk-opt %s -p 'tg-fuse,tile{target=sim},sm-panel-rows,sm-panel-rows' --split-input-file | filecheck %s
// RUN: mpk-opt %s -p 'tg-fuse,tile{target=sim},sm-panel-rows{rows=2}' --split-input-file | filecheck %s --check-prefix TWO
// RUN: mpk-opt %s -p 'tg-fuse,tile{target=sim},sm-panel-rows{rows=1}' --split-input-file | filecheck %s --check-prefix NONE

// NONE-NOT: row_panels
// NONE-NOT: panel = {{[248]}}

// What lies between products, of 8 rows. The host's buffers and weights stay as they are.
func.func @between(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %h, %b : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @between
// CHECK:       sm.buffer @x <input> : !sm.buffer
// CHECK:       sm.buffer @a <weight> layout <mma_rows_16>
// CHECK:       sm.buffer @result0 <output> : !sm.buffer
// CHECK:       sm.buffer @a.out <scratch> layout <row_panels_8> : !sm.buffer
// CHECK-NEXT:  sm.grid @a "linear" {{.*}}x_panel = 1 : i64, y_panel = 8 : i64}
// CHECK-NEXT:  sm.grid @b "linear" {{.*}}x_panel = 8 : i64, y_panel = 1 : i64}

// TWO-LABEL:   sm.graph @between
// TWO:         sm.buffer @a.out <scratch> layout <row_panels_2> : !sm.buffer
// TWO-NEXT:    sm.grid @a "linear" {{.*}}x_panel = 1 : i64, y_panel = 2 : i64}
// TWO-NEXT:    sm.grid @b "linear" {{.*}}x_panel = 2 : i64, y_panel = 1 : i64}

// -----

// Of 8 rows 5 requests have one each in most steps: panels of 4.
func.func @five(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> attributes {mpk.step = {batch = 5 : i64}} {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %h, %b : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @five
// CHECK:       sm.buffer @a.out <scratch> layout <row_panels_4>

// -----

// One request: row by row.
func.func @one(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> attributes {mpk.step = {batch = 1 : i64}} {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %h, %b : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @one
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer

// -----

// 6 rows are whole panels of 2.
func.func @six(%x: tensor<6x64xbf16>) -> tensor<6x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<6x64xbf16>, tensor<64x64xbf16>) -> tensor<6x64xbf16>
  %y = tg.linear %h, %b : (tensor<6x64xbf16>, tensor<32x64xbf16>) -> tensor<6x32xbf16>
  func.return %y : tensor<6x32xbf16>
}

// CHECK-LABEL: sm.graph @six
// CHECK:       sm.buffer @a.out <scratch> layout <row_panels_2>

// -----

// The residual and the sum with it are one parameter's: %h, %i and %j lie alike.
func.func @alike(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<64x64xbf16>
  %c = tg.param @c : tensor<64x64xbf16>
  %d = tg.param @d : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %b_h = tg.linear %x, %b : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %i = tg.add %h, %b_h : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %c_i = tg.linear %x, %c : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %j = tg.add %i, %c_i : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %j, %d : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @alike
// CHECK:       sm.buffer @a.out <scratch> layout <row_panels_8>
// CHECK:       sm.buffer @b.out <scratch> layout <row_panels_8>
// CHECK-NEXT:  sm.grid @b "linear" {{.*}}x_panel = 1 : i64, y_panel = 8 : i64} {{.*}}"residual"
// CHECK:       sm.buffer @c.out <scratch> layout <row_panels_8>

// -----

// The residual is the host's, which sees rows: so is the sum. No product reads a buffer that could lie otherwise.
func.func @of_the_host(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %a_x = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %h = tg.add %x, %a_x : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %h, %b : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @of_the_host
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer
// CHECK-NEXT:  sm.grid @a "linear" {{.*}}x_panel = 1 : i64, y_panel = 1 : i64}

// -----

// An elementwise body knows rows only: what it reads and writes lies so.
func.func @elementwise(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %n = tg.neg %h : (tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %n, %b : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK-LABEL: sm.graph @elementwise
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer
// CHECK:       sm.buffer @neg.out <scratch> : !sm.buffer

// -----

// 60 columns are no whole 8s.
sm.graph @uneven target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %a = sm.buffer @a <weight> layout <mma_rows_16> padded [64, 64] sources ["a"] : !sm.buffer<[60, 64], bf16>
  %b = sm.buffer @b <weight> layout <mma_rows_16> padded [16, 64] sources ["b"] : !sm.buffer<[16, 60], bf16>
  %h = sm.buffer @a.out <scratch> : !sm.buffer<[8, 60], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 16], bf16>
  sm.grid @a "linear" {n = 60 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [4] operands ["x", "weight", "y"](%x, %a, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[60, 64], bf16>, !sm.buffer<[8, 60], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (d0 * 16, 0), [16, 64]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @b "linear" {n = 16 : i64, k = 60 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [1] operands ["x", "weight", "y"](%h, %b, %y : !sm.buffer<[8, 60], bf16>, !sm.buffer<[16, 60], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 60]>, #sm.box<read, (d0) -> (0, 0), [16, 60]>, #sm.box<write, (d0) -> (0, 0), [8, 16]>]
}

// CHECK-LABEL: sm.graph @uneven
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer

// -----

// Tasks' boxes begin inside 8 columns.
sm.graph @inside_columns target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %a = sm.buffer @a <weight> layout <mma_rows_16> padded [64, 64] sources ["a"] : !sm.buffer<[64, 64], bf16>
  %b = sm.buffer @b <weight> layout <mma_rows_16> padded [16, 64] sources ["b"] : !sm.buffer<[16, 64], bf16>
  %h = sm.buffer @a.out <scratch> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 16], bf16>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [4] operands ["x", "weight", "y"](%x, %a, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (d0 * 16, 0), [16, 64]>, #sm.box<write, (d0) -> (0, d0 * 12), [8, 16]>]
  sm.grid @b "linear" {n = 16 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [1] operands ["x", "weight", "y"](%h, %b, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[16, 64], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [16, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 16]>]
}

// CHECK-LABEL: sm.graph @inside_columns
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer

// -----

// 7 rows are no whole panels.
func.func @seven(%x: tensor<7x64xbf16>) -> tensor<7x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<7x64xbf16>, tensor<64x64xbf16>) -> tensor<7x64xbf16>
  %y = tg.linear %h, %b : (tensor<7x64xbf16>, tensor<32x64xbf16>) -> tensor<7x32xbf16>
  func.return %y : tensor<7x32xbf16>
}

// CHECK-LABEL: sm.graph @seven
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer

// -----

// No product reads it.
func.func @no_product(%x: tensor<8x64xbf16>) -> tensor<8x64xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %w = tg.param @w : tensor<64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.rms_norm %h, %w {eps = 1.0e-06 : f64} : (tensor<8x64xbf16>, tensor<64xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// CHECK-LABEL: sm.graph @no_product
// CHECK:       sm.buffer @a.out <scratch> : !sm.buffer
