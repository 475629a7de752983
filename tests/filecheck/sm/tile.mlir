// RUN: mpk-opt %s -p 'tile{target=sim}' | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=h200}' | filecheck %s --check-prefix GPU

// Weight tiles have 16 rows; the weight is packed, the result of the function is computed in an output buffer.
func.func @step(%x: tensor<8x32xbf16>) -> tensor<8x64xbf16> {
  %w = tg.param @w : tensor<64x32xbf16>
  %y = tg.linear %x, %w : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  %z = tg.silu %y : (tensor<8x64xbf16>) -> tensor<8x64xbf16>
  func.return %z : tensor<8x64xbf16>
}

// CHECK:      sm.graph @step target "sim" {
// CHECK-NEXT: %[[X:.*]] = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
// CHECK-NEXT: %[[W:.*]] = sm.buffer @w <weight> layout <mma_rows_16> padded [64, 32] sources ["w"] : !sm.buffer<[64, 32], bf16>
// CHECK-NEXT: %[[R:.*]] = sm.buffer @result0 <output> : !sm.buffer<[8, 64], bf16>
// CHECK-NEXT: %[[Y:.*]] = sm.buffer @w.out <scratch> : !sm.buffer<[8, 64], bf16>
// CHECK-NEXT: sm.grid @w "linear" {n = 64 : i64, k = 32 : i64, tiles = 1 : i64, {{.*}}} over [4] operands ["x", "weight", "y"](%[[X]], %[[W]], %[[Y]] : {{.*}}) boxes [#sm.box<read, (d0) -> (0, 0), [8, 32]>, #sm.box<read, (d0) -> ((d0 * 16), 0), [16, 32]>, #sm.box<write, (d0) -> (0, (d0 * 16)), [8, 16]>] reason "1 tiles a task: {{.*}}"
// CHECK-NEXT: sm.grid @silu "map" {shape = [8 : i64, 64 : i64], {{.*}} expression = "silu(in0)"} over [1, 1] operands ["in0", "y"](%[[Y]], %[[R]] :
// CHECK-NOT:  func.func

// GPU: sm.graph @step target "h200"
