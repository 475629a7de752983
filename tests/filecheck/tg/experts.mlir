// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=sim},sm-synthesize-events,sm-schedule' | filecheck %s --check-prefix PLAN

func.func @step(%x: tensor<4x32xbf16>, %logits: tensor<4x8xf32>) -> tensor<4x32xbf16> {
  %up = tg.param @up : tensor<256x32xbf16>
  %down = tg.param @down : tensor<256x16xbf16>
  %weights, %experts = tg.top_k_gate %logits {k = 2 : i64} : (tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi32>)
  %inner = tg.grouped_linear %x, %up, %experts {num_experts = 8 : i64, gated} : (tensor<4x32xbf16>, tensor<256x32xbf16>, tensor<4x2xi32>) -> tensor<4x2x16xbf16>
  %parts = tg.grouped_linear %inner, %down, %experts {num_experts = 8 : i64} : (tensor<4x2x16xbf16>, tensor<256x16xbf16>, tensor<4x2xi32>) -> tensor<4x2x32xbf16>
  %y = tg.expert_sum %parts, %weights : (tensor<4x2x32xbf16>, tensor<4x2xf32>) -> tensor<4x32xbf16>
  func.return %y : tensor<4x32xbf16>
}

// CHECK: tg.top_k_gate %logits {k = 2 : i64} : (tensor<4x8xf32>) -> (tensor<4x2xf32>, tensor<4x2xi32>)
// CHECK: tg.grouped_linear %x, %up, %experts {num_experts = 8 : i64, gated}
// CHECK: tg.grouped_linear %inner, %down, %experts {num_experts = 8 : i64} :
// CHECK: tg.expert_sum %parts, %weights :

// Four SMs: a taker each. Which columns of which expert it gets nobody knows yet, so its boxes are all of x and y.
// PLAN: sm.grid @top_k_gate "top_k_gate" {{.*}} placement #sm.cyclic<0> because "one task: on SM 0, where all such grids run"
// PLAN: sm.grid @up "grouped_linear" {experts = 8 : i64, n = 16 : i64, k = 32 : i64, slots = 2 : i64, rows = 4 : i64, columns = 8 : i64, takers = 4 : i64, gated = true, per_slot = false} over [4]
// PLAN-SAME: #sm.box<write, (d0) -> (0, 0), [4, 32] along [-1, 0]>]
// PLAN-SAME: dynamic "which experts have rows is known when the step has chosen them" because "dealt in turn from SM 0"
// PLAN-SAME: reason "8 columns an item: 4 items a row on 4 SMs"
// PLAN: sm.grid @down "grouped_linear"
// PLAN: sm.grid @expert_sum "expert_sum"
