// RUN: mpk-opt %s --split-input-file --verify-diagnostics

sm.graph @step target "sim" {
  // expected-error@+2 {{sm.buffer: expected a shape of positive sizes, found [8, 0]}}
  %x = sm.buffer @x <input> : !sm.buffer<[8, 0], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+2 {{sm.event: expected at least one element, found 0}}
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<0>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{event @e: expected 2 counts, found shape (1,)}}
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<2>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{event @e: expected counts of at least 1}}
  %e = sm.event @e dense<0> : tensor<1xi32> : !sm.event<1>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: expected a padded shape that holds [8, 32], found [8, 16]}}
  %x = sm.buffer @x <scratch> padded [8, 16] : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: a weight, and no other, needs sources or a constant; found space weight}}
  %x = sm.buffer @x <weight> : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: a weight, and no other, needs sources or a constant; found space scratch}}
  %x = sm.buffer @x <scratch> sources ["p"] : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{expected one of weight, state, input, output, scratch, found 'heap'}}
  %x = sm.buffer @x <heap> : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{no task kind 'elementwize'}}
  sm.grid @a "elementwize" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{task kind 'elementwise': parameters missing ['rows'], unknown ['row']}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, row = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a: expected a positive extent, found [0]}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [0] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a: kind 'elementwise' takes operands ['a', 'b', 'row_count', 'y'], found ['a', 'x']}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "x"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a: expected one name and one box per buffer, found 1 names, 2 boxes, 2 buffers}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a, operand a: expected a box of rank 2 over 1 indices, found rank 1 over 1}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (d0 * 16), [16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a, operand a: expected a box of rank 2 over 1 indices, found rank 2 over 2}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0, d1) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  // expected-error@+1 {{grid @a, operand a: expected access read, found write}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    // expected-error@+1 {{sm.box: expected offset, sizes and along of one rank, found 2, 1 and 1}}
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    // expected-error@+1 {{sm.box: expected positive sizes, found [8, 0]}}
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 0]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<1xi32> : !sm.event<1>
  // expected-error@+1 {{grid @a signals: expected a map from 1 indices to one, found (2, 1)}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>] signals(%e : !sm.event<1>) [affine_map<(d0, d1) -> (0)>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<1xi32> : !sm.event<1>
  // expected-error@+1 {{grid @a waits: expected a table of 2 rows, found shape (3, 1)}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>] waits(%e : !sm.event<1>) [dense<0> : tensor<3x1xi32>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %w = sm.buffer @w <scratch> : !sm.buffer<[16, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 16], bf16>
  // expected-error@+1 {{grid @a, operand weight: expected a weight or a state to stream, found space scratch}}
  sm.grid @a "linear" {n = 16 : i64, k = 32 : i64, tiles = 2 : i64, pass_tiles = 2 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[16, 32], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<read, (d0) -> (0, 0), [16, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 16]>]
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  // expected-error@+1 {{grid @a waits: expected elements for each of 1 events, found 2}}
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>, affine_map<(d0) -> (0)>]
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{event @e: expected one of step, polled and after_reads at most}}
  %e = sm.event @e polled after_reads dense<1> : tensor<1xi32> : !sm.event<1>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: only scratch, which the host never sees, lies in panels of rows, found space input}}
  %x = sm.buffer @x <input> layout <row_panels_4> : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: panels are of rows of 2-byte elements, found [2, 8, 32] of 2}}
  %x = sm.buffer @x <scratch> layout <row_panels_4> : !sm.buffer<[2, 8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: panels are of rows of 2-byte elements, found [8, 32] of 4}}
  %x = sm.buffer @x <scratch> layout <row_panels_4> : !sm.buffer<[8, 32], f32>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: expected whole panels of 4 rows and 8 columns, found [6, 32]}}
  %x = sm.buffer @x <scratch> layout <row_panels_4> : !sm.buffer<[6, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: expected whole panels of 4 rows and 8 columns, found [8, 36]}}
  %x = sm.buffer @x <scratch> layout <row_panels_4> : !sm.buffer<[8, 36], bf16>
}

// -----

sm.graph @step target "sim" {
  // expected-error@+1 {{buffer @x: panels have no padding, found 1024 bytes for [8, 32]}}
  %x = sm.buffer @x <scratch> layout <row_panels_4> padded [8, 64] : !sm.buffer<[8, 32], bf16>
}

// -----

sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  // expected-error@+1 {{grid @a: task kind 'linear': x_panel is 3, expected one of [1, 2, 4, 8]}}
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 3 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
}
