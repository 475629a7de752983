// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s --mlir-print-op-generic | mpk-opt | filecheck %s
// RUN: mpk-opt %s --mlir-print-op-generic | filecheck %s --check-prefix GENERIC

// Every form of every op, type and attribute, through text in both syntaxes.
sm.graph @step target "sim" metadata {batch = 1 : i64} arena_bytes 1024 {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %w = sm.buffer @w <weight> layout <mma_rows_16> padded [48, 32] sources ["gate", "up"] interleave 8 : !sm.buffer<[40, 32], bf16>
  %k = sm.buffer @k <weight> constant dense<[1.0, 2.0]> : tensor<2xf32> : !sm.buffer<[2], f32>
  %s = sm.buffer @s <state> : !sm.buffer<[4, 2, 16, 32], bf16>
  %y = sm.buffer @y <scratch> offset 256 : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
  %e = sm.event @"a->b" dense<[2, 1]> : tensor<2xi32> : !sm.event<2>
  %end = sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
    signals(%e : !sm.event<2>) [dense<[[0, -1], [0, 1]]> : tensor<2x2xi32>] placement #sm.cyclic<3> reason "to show it"
  sm.grid @b "elementwise" {function = "neg", columns = 32 : i64, rows = 8 : i64, total = 32 : i64}
    over [1] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 32] along [0, -1]>]
    waits(%e, %e : !sm.event<2>, !sm.event<2>) [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (1)>] signals(%end : !sm.event<1>) [affine_map<(d0) -> (0)>]
    placement dense<2> : tensor<1xi32>
  sm.grid @c "join" {} over [2, 3] operands []( : ) boxes []
}

// CHECK:      sm.graph @step target "sim" metadata {batch = 1 : i64} arena_bytes 1024 {
// CHECK-NEXT: sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
// CHECK-NEXT: sm.buffer @w <weight> layout <mma_rows_16> padded [48, 32] sources ["gate", "up"] interleave 8 : !sm.buffer<[40, 32], bf16>
// CHECK-NEXT: sm.buffer @k <weight> constant dense<[1.000000e+00, 2.000000e+00]> : tensor<2xf32> : !sm.buffer<[2], f32>
// CHECK-NEXT: sm.buffer @s <state> : !sm.buffer<[4, 2, 16, 32], bf16>
// CHECK-NEXT: sm.buffer @y <scratch> offset 256 : !sm.buffer<[8, 32], bf16>
// CHECK-NEXT: sm.buffer @z <output> : !sm.buffer<[8, 32], bf16>
// CHECK-NEXT: sm.event @"a->b" dense<[2, 1]> : tensor<2xi32> : !sm.event<2>
// CHECK-NEXT: sm.event @step step dense<1> : tensor<1xi32> : !sm.event<1>
// CHECK-NEXT: sm.grid @a {{.*}} signals(%e : !sm.event<2>) [dense<[[0, -1], [0, 1]]> : tensor<2x2xi32>] placement #sm.cyclic<3> reason "to show it"
// CHECK-NEXT: sm.grid @b {{.*}} boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<write, (d0) -> (0, 0), [8, 32] along [0, -1]>] waits(%e, %e : !sm.event<2>, !sm.event<2>) [affine_map<(d0) -> (d0)>, affine_map<(d0) -> (1)>] signals(%end : !sm.event<1>) [affine_map<(d0) -> (0)>] placement dense<2> : tensor<1xi32>
// CHECK-NEXT: sm.grid @c "join" {} over [2, 3] operands []({{.*}}) boxes []

// GENERIC: "sm.graph"() <{
// GENERIC: "sm.buffer"() <{sym_name = "w"
// GENERIC-SAME: space = #sm.space<weight>
// GENERIC-SAME: layout = #sm.layout<mma_rows_16>
// GENERIC: "sm.event"() <{
// GENERIC: "sm.grid"(%x, %y, %e) <{
