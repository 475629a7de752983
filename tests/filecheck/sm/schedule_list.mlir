// RUN: mpk-opt %s -p sm-schedule-list | filecheck %s
// RUN: mpk-opt %s -p 'sm-synthesize-events,sm-schedule-list{context=64}' | \
// RUN:   filecheck %s --check-prefix PLAN

// Four SMs, nothing waits: @b's first task ends first on the SM that @a left free, its second on the next least busy one.
// With events every SM is as good for @b, the idle one comes first.
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

// CHECK: sm.grid @a {{.*}} placement #sm.cyclic<0> because "earliest end: 3 SMs, 1 task each, within
// CHECK: sm.grid @b {{.*}} placement #sm.cyclic<3> because "earliest end: 2 SMs, 1 task each, within
// CHECK: sm.grid @c {{.*}} placement #sm.cyclic<1> because "earliest end: one SM, 1 task each, within

// PLAN: sm.grid @b {{.*}} waits(%{{.*}} placement #sm.cyclic<3> because "earliest end: 2 SMs, 1 task each, within
