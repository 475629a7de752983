// RUN: mpk-opt %s -p sm-schedule | filecheck %s
// RUN: mpk-opt %s -p 'sm-schedule{rotate=false}' | filecheck %s --check-prefix ALIGNED
// RUN: mpk-opt %s -p 'sm-schedule{chain=false}' | filecheck %s --check-prefix SPREAD

// Four SMs: @b goes on where @a stopped; @c, of one task, stays on the SM of all such grids.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 32], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 24 : i64}
    over [3] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @c "elementwise" {function = "exp", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%z, %out : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
}

// CHECK: sm.grid @a {{.*}} placement #sm.cyclic<0> because "dealt in turn from SM 0"
// CHECK: sm.grid @b {{.*}} placement #sm.cyclic<3> because "dealt in turn from SM 3, where the grid before stopped"
// CHECK: sm.grid @c {{.*}} placement #sm.cyclic<0> because "one task: on SM 0, where all such grids run"

// ALIGNED: sm.grid @a {{.*}} placement #sm.cyclic<0>
// ALIGNED: sm.grid @b {{.*}} placement #sm.cyclic<0>

// SPREAD: sm.grid @b {{.*}} placement #sm.cyclic<3>
// SPREAD: sm.grid @c {{.*}} placement #sm.cyclic<1>
