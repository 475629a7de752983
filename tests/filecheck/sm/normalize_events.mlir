// RUN: mpk-opt %s -p 'sm-normalize-events{limit=2}' | filecheck %s
// RUN: mpk-opt %s -p 'sm-normalize-events{limit=4}' | filecheck %s --check-prefix FITS
// RUN: not mpk-opt %s -p 'sm-normalize-events{limit=1}' 2>&1 | filecheck %s --check-prefix LIMIT

// The one task of @b waits for four elements. With two allowed, two joins relay the surplus.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %e0 = sm.event @e0 dense<2> : tensor<1xi32> : !sm.event<1>
  %e1 = sm.event @e1 dense<1> : tensor<1xi32> : !sm.event<1>
  %e2 = sm.event @e2 dense<[1, 1]> : tensor<2xi32> : !sm.event<2>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @b "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 32]>]
    waits(%e0, %e1, %e2 : !sm.event<1>, !sm.event<1>, !sm.event<2>) [dense<0> : tensor<1x1xi32>, affine_map<(d0) -> (0)>, dense<[[0, 1]]> : tensor<1x2xi32>]
}

// CHECK: %[[E0:.*]] = sm.event @e0
// CHECK: %[[E1:.*]] = sm.event @e1
// CHECK: %[[E2:.*]] = sm.event @e2
// CHECK: %[[R1:.*]] = sm.event @b.join.relay dense<1>
// CHECK: %[[R2:.*]] = sm.event @b.join.2.relay dense<1>
// CHECK: sm.grid @b.join "join" {} over [1] {{.*}} waits(%[[E0]], %[[E1]] : {{.*}}) {{.*}} signals(%[[R1]] : !sm.event<1>) [affine_map<(d0) -> (d0)>]
// CHECK: sm.grid @b.join.2 "join" {} over [1] {{.*}} waits(%[[R1]], %[[E2]] : {{.*}}) {{.*}} signals(%[[R2]] : !sm.event<1>)
// CHECK: sm.grid @b "elementwise" {{.*}} waits(%[[R2]], %[[E2]] : !sm.event<1>, !sm.event<2>) [affine_map<(d0) -> (d0)>, dense<1> : tensor<1x1xi32>]

// FITS-NOT: "join"
// FITS: waits(%e0, %e1, %e2 : {{.*}}) [dense<0> : tensor<1x1xi32>, affine_map<(d0) -> (0)>, dense<[[0, 1]]> : tensor<1x2xi32>]

// LIMIT: sm-normalize-events: expected a limit of at least 2, found 1
