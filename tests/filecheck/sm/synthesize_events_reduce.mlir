// RUN: mpk-opt %s -p sm-synthesize-events | filecheck %s
// RUN: mpk-opt %s -p 'sm-synthesize-events{reduce=false}' | filecheck %s --check-prefix ALL

// @c reads what @a and @b write, but @b runs after @a anyway: the edge from @a is implied.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 32], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @b "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @c "elementwise" {function = "add", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "b", "y"](%y, %z, %out : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 32]>]
}

// CHECK-NOT: sm.event @"a->c"
// CHECK:     sm.event @"a->b"
// CHECK:     sm.event @"b->c"
// CHECK-NOT: sm.event @"a->c"
// CHECK:     sm.grid @c {{.*}} waits(%1 : !sm.event<1>)

// ALL: sm.event @"a->b"
// ALL: sm.event @"a->c"
// ALL: sm.event @"b->c"
// ALL: sm.grid @c {{.*}} waits(%1, %2 : !sm.event<1>, !sm.event<1>)
