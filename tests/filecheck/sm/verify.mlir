// RUN: mpk-opt %s -p sm-verify | filecheck %s

// A safe plan passes unchanged.
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
    waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>]
}

// CHECK: sm.event @e dense<2> : tensor<2xi32> : !sm.event<2>
// CHECK: sm.grid @a {{.*}} signals(%e : !sm.event<2>) [affine_map<(d0) -> ((d0 floordiv 2))>]
// CHECK: sm.grid @b {{.*}} waits(%e : !sm.event<2>) [affine_map<(d0) -> (d0)>] signals(%s : !sm.event<1>)
