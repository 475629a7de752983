// RUN: mpk-opt %s -p 'sm-synthesize-events,sm-schedule,sm-fuse-chains,sm-elide-waits,sm-verify' --split-input-file | filecheck %s
// RUN: mpk-opt %s -p 'sm-synthesize-events,sm-schedule,sm-elide-waits,sm-verify' --split-input-file | filecheck %s --check-prefix APART

// Each task of @b reads what one task of @a makes. Dealt in turn it would run on the next SM; behind that task it needs no
// event. @c reads everything, from all SMs, and stays where it is.
sm.graph @chain target "h200" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 16], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 16], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 16], bf16>
  %r = sm.buffer @r <output> : !sm.buffer<[8, 16], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 16 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 16], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @b "elementwise" {function = "neg", columns = 8 : i64, rows = 8 : i64, total = 16 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 16], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @c "elementwise" {function = "exp", columns = 16 : i64, rows = 8 : i64, total = 16 : i64}
    over [1] operands ["a", "y"](%z, %r : !sm.buffer<[8, 16], bf16>, !sm.buffer<[8, 16], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 16]>, #sm.box<write, (d0) -> (0, 0), [8, 16]>]
}

// CHECK:      sm.graph @chain
// CHECK-NOT:  @"a->b"
// CHECK:      sm.event @"b->c" dense<2>
// CHECK:      sm.grid @b {{.*}} placement #sm.cyclic<0> because "in chains behind @a: 1.8 us less"
// CHECK:      sm.grid @c {{.*}} placement #sm.cyclic<0> because "one task

// APART:      sm.graph @chain
// APART:      sm.event @"a->b" dense<1> : tensor<2xi32>
// APART:      sm.grid @b {{.*}} placement #sm.cyclic<2> because "dealt in turn

// -----

// Sixteen tasks of @b read what the one task of @a makes: one SM would have them all, which costs more than a hand-off.
sm.graph @uneven target "h200" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 128], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 128], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 128], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 128 : i64, rows = 8 : i64, total = 128 : i64}
    over [1] operands ["a", "y"](%x, %y : !sm.buffer<[8, 128], bf16>, !sm.buffer<[8, 128], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 128]>, #sm.box<write, (d0) -> (0, 0), [8, 128]>]
  sm.grid @b "elementwise" {function = "neg", columns = 8 : i64, rows = 8 : i64, total = 128 : i64}
    over [16] operands ["a", "y"](%y, %z : !sm.buffer<[8, 128], bf16>, !sm.buffer<[8, 128], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
}

// CHECK:      sm.graph @uneven
// CHECK:      sm.grid @b {{.*}} because "dealt in turn
