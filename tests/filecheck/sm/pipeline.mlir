// RUN: mpk-opt %s -p sm-pipeline | filecheck %s
// RUN: mpk-opt %s -p sm-pipeline | mpk-opt | filecheck %s
// RUN: mpk-opt %s -p 'sm-pipeline{ring_kib=64}' | filecheck %s --check-prefix SMALL
// RUN: mpk-opt %s -p 'sm-pipeline{in_flight=0}' | filecheck %s --check-prefix FREE
// RUN: not mpk-opt %s -p 'sm-pipeline{ring_kib=16}' 2>&1 | filecheck %s --check-prefix LEAST
// RUN: mpk-opt %s -p sm-pipeline,sm-synthesize-events,sm-plan-memory,sm-verify | filecheck %s

// Four SMs. A task of @w streams 64 rows of 512 columns, 64 KiB; @v on the same SM another 32 KiB, and then the loader
// goes on with the next step: the whole ring is ahead. @a streams nothing.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 512], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> sources ["w"] : !sm.buffer<[256, 512], bf16>
  %v = sm.buffer @v <weight> layout <mma_rows_16> sources ["v"] : !sm.buffer<[256, 256], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 256], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 256], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 256], bf16>
  sm.grid @w "linear" {n = 256 : i64, k = 512 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [4, 1] operands ["x", "weight", "y"](%x, %w, %y : !sm.buffer<[8, 512], bf16>, !sm.buffer<[256, 512], bf16>, !sm.buffer<[8, 256], bf16>)
    boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 512]>, #sm.box<read, (d0, d1) -> (d0 * 64, 0), [64, 512]>, #sm.box<write, (d0, d1) -> (0, d0 * 64), [8, 64]>]
  sm.grid @v "linear" {n = 256 : i64, k = 256 : i64, tiles = 4 : i64, pass_tiles = 4 : i64, rows = 8 : i64, norm = false, eps = 0.0 : f64, bias = false, residual = false, best = false, activation = "none", out = "bf16", total_rows = 0 : i64}
    over [4, 1] operands ["x", "weight", "y"](%y, %v, %z : !sm.buffer<[8, 256], bf16>, !sm.buffer<[256, 256], bf16>, !sm.buffer<[8, 256], bf16>)
    boxes [#sm.box<read, (d0, d1) -> (0, 0), [8, 256]>, #sm.box<read, (d0, d1) -> (d0 * 64, 0), [64, 256]>, #sm.box<write, (d0, d1) -> (0, d0 * 64), [8, 64]>]
  sm.grid @a "elementwise" {function = "silu", columns = 64 : i64, rows = 8 : i64, total = 256 : i64}
    over [4] operands ["a", "y"](%z, %out : !sm.buffer<[8, 256], bf16>, !sm.buffer<[8, 256], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 64), [8, 64]>, #sm.box<write, (d0) -> (0, d0 * 64), [8, 64]>]
}

// CHECK: sm.graph @step target "sim" {{.*}}shared_memory <ring 11 x 16384 in_flight 1 to 6, scratch 2 x 17664> {
// CHECK: sm.grid @w {{.*}} stream <keeps 4, ahead 11>
// CHECK: sm.grid @v {{.*}} stream <keeps 4, ahead 11>
// CHECK: sm.grid @a
// CHECK-NOT: stream

// SMALL: shared_memory <ring 4 x 16384 in_flight 1 to 4, scratch 2 x 17664>
// SMALL: sm.grid @v {{.*}} stream <keeps 4, ahead 4>

// FREE: shared_memory <ring 11 x 16384, scratch 2 x 17664>

// LEAST: sm-pipeline: twice 17664 bytes of scratch leave room for 11 stages of 16384 bytes, 1 are allowed, expected at least 4
// LEAST: help: lower `rows`, or raise `ring_kib`
