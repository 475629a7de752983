// RUN: mpk-opt %s -p tg-merge-linears | filecheck %s

// Three linears of one activation: one linear, three slices.
// CHECK-LABEL: func.func @qkv
// CHECK-NEXT: %[[W:.*]] = tg.param @attn.q_k_v.weight {sources = ["attn.q.weight", "attn.k.weight", "attn.v.weight"]} : tensor<32x16xf32>
// CHECK-NEXT: %[[Y:.*]] = tg.linear %x, %[[W]] : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
// CHECK-NEXT: %[[Q:.*]] = tg.slice %[[Y]] {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>}
// CHECK-NEXT: %[[K:.*]] = tg.slice %[[Y]] {offsets = array<i64: 0, 16>, sizes = array<i64: 4, 8>}
// CHECK-NEXT: %[[V:.*]] = tg.slice %[[Y]] {offsets = array<i64: 0, 24>, sizes = array<i64: 4, 8>}
// CHECK-NEXT: func.return %[[Q]], %[[K]], %[[V]]
func.func @qkv(%x: tensor<4x16xf32>) -> (tensor<4x16xf32>, tensor<4x8xf32>, tensor<4x8xf32>) {
  %wq = tg.param @attn.q.weight : tensor<16x16xf32>
  %q = tg.linear %x, %wq : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
  %wk = tg.param @attn.k.weight : tensor<8x16xf32>
  %k = tg.linear %x, %wk : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %wv = tg.param @attn.v.weight : tensor<8x16xf32>
  %v = tg.linear %x, %wv : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  func.return %q, %k, %v : tensor<4x16xf32>, tensor<4x8xf32>, tensor<4x8xf32>
}

// Biases merge too; the linear without one is left alone.
// CHECK-LABEL: func.func @biases
// CHECK: %[[B:.*]] = tg.param @a_b.bias {sources = ["a.bias", "b.bias"]} : tensor<16xf32>
// CHECK-NEXT: tg.linear %x, %{{.*}} bias %[[B]] : (tensor<4x16xf32>, tensor<16x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
// CHECK: tg.linear %x, %wc : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
func.func @biases(%x: tensor<4x16xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>) {
  %wa = tg.param @a.weight : tensor<8x16xf32>
  %ba = tg.param @a.bias : tensor<8xf32>
  %a = tg.linear %x, %wa bias %ba : (tensor<4x16xf32>, tensor<8x16xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  %wc = tg.param @c.weight : tensor<8x16xf32>
  %c = tg.linear %x, %wc : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %wb = tg.param @b.weight : tensor<8x16xf32>
  %bb = tg.param @b.bias : tensor<8xf32>
  %b = tg.linear %x, %wb bias %bb : (tensor<4x16xf32>, tensor<8x16xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  func.return %a, %b, %c : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xf32>
}

// Nothing merges: another activation, another result type, a weight with a second user, a weight that is computed.
// CHECK-LABEL: func.func @refused
// CHECK-NOT: sources
// CHECK: func.return
func.func @refused(%x: tensor<4x16xf32>, %y: tensor<4x16xf32>, %computed: tensor<8x16xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xbf16>, tensor<4x8xf32>, tensor<4x8xf32>, tensor<8x16xf32>) {
  %w0 = tg.param @w0 : tensor<8x16xf32>
  %0 = tg.linear %x, %w0 : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %w1 = tg.param @w1 : tensor<8x16xf32>
  %1 = tg.linear %y, %w1 : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %w2 = tg.param @w2 : tensor<8x16xf32>
  %2 = tg.linear %x, %w2 : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xbf16>
  %w3 = tg.param @w3 : tensor<8x16xf32>
  %3 = tg.linear %x, %w3 : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %4 = tg.linear %x, %computed : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  func.return %0, %1, %2, %3, %4, %w3 : tensor<4x8xf32>, tensor<4x8xf32>, tensor<4x8xbf16>, tensor<4x8xf32>, tensor<4x8xf32>, tensor<8x16xf32>
}
