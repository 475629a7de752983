// RUN: mpk-opt %s -p sm-synthesize-events,sm-fuse-events | filecheck %s

// @c waits for @a and for @b in the same way: one event tensor with the sum of the arrivals.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 32], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @b "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%x, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @c "elementwise" {function = "add", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "b", "y"](%y, %z, %out : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 32]>]
}

// CHECK:      %0 = sm.event @"b->c" dense<2> : tensor<1xi32> : !sm.event<1>
// CHECK-NEXT: %1 = sm.event @step
// CHECK-NEXT: sm.grid @a {{.*}} signals(%0 : !sm.event<1>)
// CHECK-NEXT: sm.grid @b {{.*}} signals(%0 : !sm.event<1>)
// CHECK-NEXT: sm.grid @c {{.*}} waits(%0 : !sm.event<1>)
