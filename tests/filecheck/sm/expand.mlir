// RUN: mpk-opt %s -p sm-synthesize-events,sm-schedule,sm-expand | filecheck %s
// RUN: not mpk-opt %s -p 'sm-expand{limit=5}' 2>&1 | filecheck %s --check-prefix LIMIT

// One grid per task: constant boxes, constant event elements, one SM.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 8 : i64, rows = 8 : i64, total = 32 : i64}
    over [4] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 8), [8, 8]>, #sm.box<write, (d0) -> (0, d0 * 8), [8, 8]>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// CHECK:      sm.grid @"a[0]" {{.*}} over [1] {{.*}} #sm.box<write, (d0) -> (0, 0), [8, 8]>] {{.*}} [dense<0> : tensor<1x1xi32>] placement dense<0> : tensor<1xi32>
// CHECK-NEXT: sm.grid @"a[1]" {{.*}} #sm.box<write, (d0) -> (0, 8), [8, 8]>] {{.*}} [dense<0> : tensor<1x1xi32>] placement dense<1>
// CHECK-NEXT: sm.grid @"a[2]" {{.*}} #sm.box<write, (d0) -> (0, 16), [8, 8]>] {{.*}} [dense<1> : tensor<1x1xi32>] placement dense<2>
// CHECK-NEXT: sm.grid @"a[3]" {{.*}} #sm.box<write, (d0) -> (0, 24), [8, 8]>] {{.*}} [dense<1> : tensor<1x1xi32>] placement dense<3>
// CHECK-NEXT: sm.grid @"b[0]" {{.*}}#sm.box<read, (d0) -> (0, 0), [8, 16]>, {{.*}} waits(%0 : !sm.event<2>) [dense<0> : tensor<1x1xi32>]
// CHECK-NEXT: sm.grid @"b[1]" {{.*}}#sm.box<read, (d0) -> (0, 16), [8, 16]>, {{.*}} waits(%0 : !sm.event<2>) [dense<1> : tensor<1x1xi32>]

// LIMIT: sm-expand: graph @step has 6 tasks, the limit is 5
