// RUN: mpk-opt %s -p 'sm-elide-waits,sm-verify' | filecheck %s
// RUN: mpk-opt %s -p 'sm-elide-waits{arrivals=false},sm-verify' | filecheck %s --check-prefix WAITS
// RUN: mpk-opt %s -p 'sm-elide-waits{waits=false},sm-verify' | filecheck %s --check-prefix ARRIVALS

// Eight tasks of @a on four SMs: the second on each SM arrives for both. @b and @c run on SM 0, one after the other:
// @c need not wait for @b, nor for @a, which @b waited for.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 64], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 64], bf16>
  %r = sm.buffer @r <output> : !sm.buffer<[8, 64], bf16>
  %e = sm.event @e dense<8> : tensor<1xi32> : !sm.event<1>
  %f = sm.event @f dense<1> : tensor<1xi32> : !sm.event<1>
  %s = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 64 : i64}
    over [8] operands ["a", "y"](%x, %y : !sm.buffer<[8, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
    signals(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] placement #sm.cyclic<1>
  sm.grid @b "elementwise" {function = "neg", columns = 64 : i64, rows = 8 : i64, total = 64 : i64}
    over [1] operands ["a", "y"](%y, %z : !sm.buffer<[8, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e : !sm.event<1>) [affine_map<(d0) -> (0)>] signals(%f : !sm.event<1>) [affine_map<(d0) -> (0)>]
    placement #sm.cyclic<0>
  sm.grid @c "elementwise" {function = "add", columns = 64 : i64, rows = 8 : i64, total = 64 : i64}
    over [1] operands ["a", "b", "y"](%y, %z, %r : !sm.buffer<[8, 64], bf16>, !sm.buffer<[8, 64], bf16>, !sm.buffer<[8, 64], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<read, (d0) -> (0, 0), [8, 64]>, #sm.box<write, (d0) -> (0, 0), [8, 64]>]
    waits(%e, %f : !sm.event<1>, !sm.event<1>) [affine_map<(d0) -> (0)>, affine_map<(d0) -> (0)>]
    signals(%s : !sm.event<1>) [affine_map<(d0) -> (0)>] placement #sm.cyclic<0>
}

// CHECK: %[[E:.*]] = sm.event @e dense<4>
// CHECK-NOT: sm.event @f
// CHECK: sm.grid @a {{.*}} signals(%[[E]] : !sm.event<1>) [dense<[{{\[}}-1], [-1], [-1], [-1], [0], [0], [0], [0]]> : tensor<8x1xi32>]
// CHECK: sm.grid @b {{.*}} waits(%[[E]] : !sm.event<1>) [affine_map<(d0) -> (0)>] placement
// CHECK-NOT: waits
// CHECK: sm.grid @c {{.*}} signals

// WAITS: sm.event @e dense<8>
// WAITS-NOT: sm.event @f
// WAITS: sm.grid @a {{.*}} signals(%{{.*}} : !sm.event<1>) [affine_map<(d0) -> (0)>]
// WAITS: sm.grid @b {{.*}} waits(
// WAITS-NOT: waits
// WAITS: sm.grid @c

// ARRIVALS: sm.event @e dense<4>
// ARRIVALS: sm.event @f dense<1>
// ARRIVALS: sm.grid @c {{.*}} waits(
