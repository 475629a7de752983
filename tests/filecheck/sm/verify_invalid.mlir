// RUN: mpk-opt %s -p sm-verify --split-input-file --verify-diagnostics

// The elements of @b's second task are written by tasks 2 and 3 of @a, it waits for tasks 0 and 1.
// expected-error@unknown {{race: nothing orders @a[2] (SM 2, position 0) and @b[1] (SM 1, position 1): of buffer @y the first writes [0:8, 16:24] by operand y, the second reads [0:8, 16:32] by operand a}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// No wait at all.
// expected-error@unknown {{race: nothing orders @a[1] (SM 1, position 0) and @b[0] (SM 0, position 1)}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// Two tasks signal an element that expects three.
// expected-error@unknown {{counting: event @e[0] is said to receive 3 arrivals a step, its signals give 2}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<[3, 2]> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// The consumer is queued before its producers.
// expected-error@unknown {{deadlock: 1 SMs wait for ever; @b[0] (SM 0, position 0) waits for @e[0] of @a[0] (SM 0, position 1), queued behind @b[0] (SM 0, position 0)}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
}

// -----

// A quarter of what @b reads is never written.
// expected-error@unknown {{coverage: @b[1] (SM 1, position 1) reads by operand a elements of buffer @y that no grid before it writes}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<[2, 1]> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 24 : i64}
    over [3] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// Both scratch buffers are in use when @b runs.
// expected-error@unknown {{memory: buffers @y and @z share bytes 256 to 512 while both are in use, by @b[1] (SM 1, position 1) and @b[1] (SM 1, position 1)}}
sm.graph @step target "sim" arena_bytes 768 {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> offset 0 : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <scratch> offset 256 : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// The arena is too small.
// expected-error@unknown {{memory: buffer @y is at bytes 256 to 768 of an arena of 512}}
sm.graph @step target "sim" arena_bytes 512 {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> offset 256 : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// A task that nothing waits for does not signal the step.
// expected-error@unknown {{step: @a[2] (SM 2, position 0) may still run when event @step[0] ends the step}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [dense<[[0], [-1]]> : tensor<2x1xi32>]
}

// -----

// The last box begins past the buffer.
// expected-error@unknown {{bounds: @a[4] (SM 0, position 1) touches by operand a the box [0:8, 32:40], which is not inside buffer @x of shape [8, 32]}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
  %s = sm.event @step step dense<2> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [5] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<2>) [affine_map<(d0) -> (d0 floordiv 2)>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// An elementwise task cannot tell written words from others.
// expected-error@unknown {{polled: buffer @y is polled, and @a[0] (SM 0, position 0), operand y, cannot tell its written words from the others}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> polled : !sm.buffer<[8, 32], bf16>
  %s = sm.event @step step dense<4> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// More stages are said to be filled while a task of @v waits than the ring has.
// expected-error@unknown {{ring: while @v[0, 0] (SM 0, position 1) waits 12 stages from its first on are said to be filled, the ring has 11: the next would overwrite one that is not given back}}
sm.graph @step target "sim" arena_bytes 8192 polled_bytes 0 shared_memory <ring 11 x 16384, scratch 2 x 17664> {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 512], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[256, 512], bf16>
  %v = sm.buffer @v <weight> layout <mma_rows_16> sources ["v"] : !sm.buffer<[256, 256], bf16>
  %y = sm.buffer @y <scratch> offset 0 : !sm.buffer<[8, 256], bf16>
  %z = sm.buffer @z <scratch> offset 4096 : !sm.buffer<[8, 256], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 256], bf16>
  %0 = sm.event @"w->v" dense<4> : tensor<1xi32> : !sm.event<1>
  %1 = sm.event @"v->a" dense<1> : tensor<4xi32> : !sm.event<4>
  %2 = sm.event @step step dense<4> : tensor<1xi32> : !sm.event<1>
  sm.grid @w "linear" {n = 256 : i64, k = 512 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.000000e+00 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64} over [4, 1] operands ["x", "weight", "y"](%x, %w, %y : !sm.buffer<[8, 512], bf16>, !sm.buffer<[256, 512], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 512]>, #sm.box<read, (d0, d1) -> ((d0 * 64), 0), [64, 512]>, #sm.box<write, (d0, d1) -> (0, (d0 * 64)), [8, 64]>] signals(%0 : !sm.event<1>) [affine_map<(d0, d1) -> (0)>] stream <keeps 4, ahead 11>
  sm.grid @v "linear" {n = 256 : i64, k = 256 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.000000e+00 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64} over [4, 1] operands ["x", "weight", "y"](%y, %v, %z : !sm.buffer<[8, 256], bf16>, !sm.buffer<[256, 256], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 256]>, #sm.box<read, (d0, d1) -> ((d0 * 64), 0), [64, 256]>, #sm.box<write, (d0, d1) -> (0, (d0 * 64)), [8, 64]>] waits(%0 : !sm.event<1>) [affine_map<(d0, d1) -> (0)>] signals(%1 : !sm.event<4>) [affine_map<(d0, d1) -> (d0)>] stream <keeps 4, ahead 12>
  sm.grid @a "elementwise" {function = "silu", columns = 64 : i64, rows = 8 : i64, total = 256 : i64} over [4] operands ["a", "y"](%z, %out : !sm.buffer<[8, 256], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0) -> (0, (d0 * 64)), [8, 64]>, #sm.box<write, (d0) -> (0, (d0 * 64)), [8, 64]>] waits(%1 : !sm.event<4>) [affine_map<(d0) -> (d0)>] signals(%2 : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// Boxes that begin 8 columns further on: the last reaches beyond the buffer, and is no block from its begin.
// expected-error@unknown {{bounds: @a[3] (SM 3, position 2) touches by operand a the box [0:8, 200:264], which is not inside buffer @z of shape [8, 256]}}
sm.graph @step target "sim" arena_bytes 8192 polled_bytes 0 shared_memory <ring 11 x 16384, scratch 2 x 17664> {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 512], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[256, 512], bf16>
  %v = sm.buffer @v <weight> layout <mma_rows_16> sources ["v"] : !sm.buffer<[256, 256], bf16>
  %y = sm.buffer @y <scratch> offset 0 : !sm.buffer<[8, 256], bf16>
  %z = sm.buffer @z <scratch> offset 4096 : !sm.buffer<[8, 256], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 256], bf16>
  %0 = sm.event @"w->v" dense<4> : tensor<1xi32> : !sm.event<1>
  %1 = sm.event @"v->a" dense<1> : tensor<4xi32> : !sm.event<4>
  %2 = sm.event @step step dense<4> : tensor<1xi32> : !sm.event<1>
  sm.grid @w "linear" {n = 256 : i64, k = 512 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.000000e+00 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64} over [4, 1] operands ["x", "weight", "y"](%x, %w, %y : !sm.buffer<[8, 512], bf16>, !sm.buffer<[256, 512], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 512]>, #sm.box<read, (d0, d1) -> ((d0 * 64), 0), [64, 512]>, #sm.box<write, (d0, d1) -> (0, (d0 * 64)), [8, 64]>] signals(%0 : !sm.event<1>) [affine_map<(d0, d1) -> (0)>] stream <keeps 4, ahead 11>
  sm.grid @v "linear" {n = 256 : i64, k = 256 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.000000e+00 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64} over [4, 1] operands ["x", "weight", "y"](%y, %v, %z : !sm.buffer<[8, 256], bf16>, !sm.buffer<[256, 256], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 256]>, #sm.box<read, (d0, d1) -> ((d0 * 64), 0), [64, 256]>, #sm.box<write, (d0, d1) -> (0, (d0 * 64)), [8, 64]>] waits(%0 : !sm.event<1>) [affine_map<(d0, d1) -> (0)>] signals(%1 : !sm.event<4>) [affine_map<(d0, d1) -> (d0)>] stream <keeps 4, ahead 11>
  sm.grid @a "elementwise" {function = "silu", columns = 64 : i64, rows = 8 : i64, total = 256 : i64} over [4] operands ["a", "y"](%z, %out : !sm.buffer<[8, 256], bf16>, !sm.buffer<[8, 256], bf16>) boxes [#sm.box<read, (d0) -> (0, ((d0 * 64) + 8)), [8, 64]>, #sm.box<write, (d0) -> (0, (d0 * 64)), [8, 64]>] waits(%1 : !sm.event<4>) [affine_map<(d0) -> (d0)>] signals(%2 : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// A product takes in panels of 8 rows what was written in panels of 4.
// expected-error@unknown {{layout: @b[0] (SM 0, position 1) touches by operand x the box [0:8, 0:64] of buffer @h, which lies in row_panels_4, its body takes it in row_panels_8}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 4 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 8 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// It takes rows one behind the other.
// expected-error@unknown {{operand x the box [0:8, 0:64] of buffer @h, which lies in row_panels_4, its body takes it in row_major}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 4 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// A writer that knows nothing of panels.
// expected-error@unknown {{layout: @a[0] (SM 0, position 0) touches by operand y the box [0:8, 0:64] of buffer @h, which lies in row_panels_4, its body takes it in row_major}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 4 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// A box begins inside 8 columns.
// expected-error@unknown {{operand x the box [0:8, 4:36] of buffer @h, in which it cannot count panels of 4 rows and 8 columns}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 4 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 4 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 4), [8, 32]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// A box begins inside a panel and ends in the next.
// expected-error@unknown {{operand x the box [2:6, 0:64] of buffer @h, in which it cannot count panels of 4 rows and 8 columns}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 4 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 4 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (2, 0), [4, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// -----

// Weights of products are in tiles.
// expected-error@unknown {{layout: @a[0] (SM 0, position 0) touches by operand weight the box [0:64, 0:64] of buffer @w, which lies in row_major, its body takes it in mma_rows_16}}
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %w = sm.buffer @w <weight> sources ["w"] : !sm.buffer<[64, 64], bf16>
  %h = sm.buffer @h <scratch> layout <row_panels_4> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 1 : i64, y_panel = 4 : i64}
    over [1] operands ["x", "weight", "y"](%x, %w, %h : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>]
  sm.grid @b "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64, pass_tiles = 1 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64, x_panel = 4 : i64, y_panel = 1 : i64}
    over [1] operands ["x", "weight", "y"](%h, %w, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[64, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [64, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}
