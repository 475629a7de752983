// RUN: mpk-opt %s -p sm-synthesize-events,sm-fuse-events | filecheck %s
// RUN: mpk-opt %s -p 'sm-synthesize-events,sm-fuse-events{predecessors=false}' | filecheck %s --check-prefix KEPT

// Both readers of @a wait for the same tasks in the same way: one event tensor serves both.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %v = sm.buffer @v <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @c "elementwise" {function = "exp", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %v : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// CHECK:      %0 = sm.event @"a->b" dense<1> : tensor<1xi32> : !sm.event<1>
// CHECK-NEXT: %1 = sm.event @step
// CHECK-NEXT: sm.grid @a {{.*}} signals(%0 : !sm.event<1>)
// CHECK-NEXT: sm.grid @b {{.*}} waits(%0 : !sm.event<1>)
// CHECK-NEXT: sm.grid @c {{.*}} waits(%0 : !sm.event<1>)

// KEPT:      sm.event @"a->b"
// KEPT-NEXT: sm.event @"a->c"
// KEPT:      sm.grid @a {{.*}} signals(%0, %1 : !sm.event<1>, !sm.event<1>)
