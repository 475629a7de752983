// RUN: mpk-opt %s -p sm-plan-memory | filecheck %s
// RUN: mpk-opt %s -p 'sm-plan-memory{reuse=false}' | filecheck %s --check-prefix OWN

// When @c writes %t2, all tasks that touched %t0 are over: it takes the memory of %t0. The output is not in the arena.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %t0 = sm.buffer @t0 <scratch> : !sm.buffer<[8, 32], bf16>
  %t1 = sm.buffer @t1 <scratch> : !sm.buffer<[8, 32], bf16>
  %t2 = sm.buffer @t2 <scratch> : !sm.buffer<[8, 32], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %t0 : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @b "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%t0, %t1 : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
  sm.grid @c "elementwise" {function = "exp", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%t1, %t2 : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @d "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%t2, %out : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 32), [8, 32]>, #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
}

// CHECK:      sm.graph @step target "sim" arena_bytes 1024 polled_bytes 0 {
// CHECK:      sm.buffer @t0 <scratch> offset 0
// CHECK-NEXT: sm.buffer @t1 <scratch> offset 512
// CHECK-NEXT: sm.buffer @t2 <scratch> offset 0
// CHECK-NEXT: sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>

// OWN: arena_bytes 1536
// OWN: sm.buffer @t2 <scratch> offset 1024
