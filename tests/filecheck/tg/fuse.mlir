// RUN: mpk-opt %s -p tg-fuse | filecheck %s
// RUN: mpk-opt %s -p 'tg-fuse{norm=false residual=false activation=false attention=false}' | filecheck %s --check-prefix OFF
// OFF-NOT: tg.fused

// Norm before, residual after: one op.
// CHECK-LABEL: func.func @norm_and_residual
// CHECK-NEXT: %[[H:.*]] = tg.fused_linear %x, %w norm %g : tensor<16xf32> residual %r : tensor<4x32xf32> {eps = 1.000000e-06 : f64} : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
// CHECK-NEXT: func.return %[[H]]
func.func @norm_and_residual(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>, %g: tensor<16xf32>, %r: tensor<4x32xf32>) -> tensor<4x32xf32> {
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %y = tg.linear %n, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %h = tg.add %y, %r : (tensor<4x32xf32>, tensor<4x32xf32>) -> tensor<4x32xf32>
  func.return %h : tensor<4x32xf32>
}

// Two linears of one norm: each computes it.
// CHECK-LABEL: func.func @two_linears
// CHECK-NEXT: tg.fused_linear %x, %w norm %g
// CHECK-NEXT: tg.fused_linear %x, %v norm %g
// CHECK-NEXT: func.return
func.func @two_linears(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>, %v: tensor<8x16xf32>, %g: tensor<16xf32>) -> (tensor<4x32xf32>, tensor<4x8xf32>) {
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %y = tg.linear %n, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %z = tg.linear %n, %v : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  func.return %y, %z : tensor<4x32xf32>, tensor<4x8xf32>
}

// The norm has another user: it is computed anyway, and stays.
// CHECK-LABEL: func.func @norm_used_elsewhere
// CHECK-NEXT: tg.rms_norm
// CHECK-NEXT: tg.linear
func.func @norm_used_elsewhere(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>, %g: tensor<16xf32>) -> (tensor<4x32xf32>, tensor<4x16xf32>) {
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %y = tg.linear %n, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  func.return %y, %n : tensor<4x32xf32>, tensor<4x16xf32>
}

// The product has another user, or the addition broadcasts: no residual.
// CHECK-LABEL: func.func @residual_refused
// CHECK-NOT: residual
// CHECK: func.return
func.func @residual_refused(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>, %r: tensor<4x32xf32>, %row: tensor<32xf32>) -> (tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>) {
  %y = tg.linear %x, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %h = tg.add %r, %y : (tensor<4x32xf32>, tensor<4x32xf32>) -> tensor<4x32xf32>
  %z = tg.linear %x, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %i = tg.add %z, %row : (tensor<4x32xf32>, tensor<32xf32>) -> tensor<4x32xf32>
  func.return %y, %h, %i : tensor<4x32xf32>, tensor<4x32xf32>, tensor<4x32xf32>
}

// What is added to a norm that nobody else uses goes into it.
// CHECK-LABEL: func.func @norm_then_residual
// CHECK-NEXT: tg.fused_norm %x, %g residual %r {eps = 1.000000e-06 : f64} : (tensor<4x16xf32>, tensor<16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
// CHECK-NEXT: func.return
func.func @norm_then_residual(%x: tensor<4x16xf32>, %g: tensor<16xf32>, %r: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %h = tg.add %r, %n : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  func.return %h : tensor<4x16xf32>
}

// The norm has another user, or the addition broadcasts, or there are three dimensions: both stay.
// CHECK-LABEL: func.func @norm_then_no_residual
// CHECK-NOT: tg.fused_norm
// CHECK: func.return
func.func @norm_then_no_residual(%x: tensor<4x16xf32>, %g: tensor<16xf32>, %r: tensor<4x16xf32>, %z: tensor<2x4x16xf32>) -> (tensor<4x16xf32>, tensor<4x16xf32>, tensor<4x16xf32>, tensor<2x4x16xf32>) {
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %h = tg.add %r, %n : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %m = tg.rms_norm %r, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %i = tg.add %m, %g : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %o = tg.rms_norm %z, %g {eps = 1.0e-6 : f64} : (tensor<2x4x16xf32>, tensor<16xf32>) -> tensor<2x4x16xf32>
  %p = tg.add %o, %z : (tensor<2x4x16xf32>, tensor<2x4x16xf32>) -> tensor<2x4x16xf32>
  func.return %n, %h, %i, %p : tensor<4x16xf32>, tensor<4x16xf32>, tensor<4x16xf32>, tensor<2x4x16xf32>
}

// The halves of one product, gated: the weight and bias are interleaved.
// CHECK-LABEL: func.func @gated
// CHECK-NEXT: %[[W:.*]] = tg.param @gate_up {sources = ["gate", "up"], interleave = 8 : i64} : tensor<32x16xf32>
// CHECK-NEXT: %[[B:.*]] = tg.param @biases {sources = ["gate_b", "up_b"], interleave = 8 : i64} : tensor<32xf32>
// CHECK-NEXT: tg.fused_linear %x, %[[W]] bias %[[B]] : tensor<32xf32> {epilogue = #tg<epilogue gelu_mul>} : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x16xf32>
func.func @gated(%x: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %w = tg.param @gate_up {sources = ["gate", "up"]} : tensor<32x16xf32>
  %b = tg.param @biases {sources = ["gate_b", "up_b"]} : tensor<32xf32>
  %y = tg.linear %x, %w bias %b : (tensor<4x16xf32>, tensor<32x16xf32>, tensor<32xf32>) -> tensor<4x32xf32>
  %gate = tg.slice %y {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %up = tg.slice %y {offsets = array<i64: 0, 16>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %z = tg.gelu_mul %gate, %up {approximate} : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  func.return %z : tensor<4x16xf32>
}

// Refused: up before gate, the exact gelu, a weight of one source.
// CHECK-LABEL: func.func @gated_refused
// CHECK-NOT: epilogue
// CHECK: func.return
func.func @gated_refused(%x: tensor<4x16xf32>) -> (tensor<4x16xf32>, tensor<4x16xf32>, tensor<4x16xf32>) {
  %w0 = tg.param @w0 {sources = ["gate", "up"]} : tensor<32x16xf32>
  %y0 = tg.linear %x, %w0 : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %a0 = tg.slice %y0 {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %b0 = tg.slice %y0 {offsets = array<i64: 0, 16>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %z0 = tg.silu_mul %b0, %a0 : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %w1 = tg.param @w1 {sources = ["gate", "up"]} : tensor<32x16xf32>
  %y1 = tg.linear %x, %w1 : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %a1 = tg.slice %y1 {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %b1 = tg.slice %y1 {offsets = array<i64: 0, 16>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %z1 = tg.gelu_mul %a1, %b1 : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %w2 = tg.param @w2 : tensor<32x16xf32>
  %y2 = tg.linear %x, %w2 : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  %a2 = tg.slice %y2 {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %b2 = tg.slice %y2 {offsets = array<i64: 0, 16>, sizes = array<i64: 4, 16>} : (tensor<4x32xf32>) -> tensor<4x16xf32>
  %z2 = tg.silu_mul %a2, %b2 : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  func.return %z0, %z1, %z2 : tensor<4x16xf32>, tensor<4x16xf32>, tensor<4x16xf32>
}

// Split, rope, append, attend: one op. The update that stood before the attention follows it.
// CHECK-LABEL: func.func @attention
// CHECK: %[[O:.*]], %[[K:.*]], %[[V:.*]] = tg.fused_attention %qkv, %k_cache, %v_cache, %rows, %requests, %pages rope %f : tensor<8xf32> {heads = 2 : i64, kv_heads = 1 : i64, head_dim = 16 : i64, scale = 2.500000e-01 : f64, softcap = 5.000000e+01 : f64, window = 7 : i64}
// CHECK-NEXT: tg.update @k_cache.0, %[[K]]
// CHECK-NEXT: func.return %[[O]], %[[V]]
func.func @attention(%qkv: tensor<4x64xf32>, %f: tensor<8xf32>) -> (tensor<4x32xf32>, tensor<4x1x8x16xf32>) {
  %rows = tg.state @rows : tensor<4x4xi32>
  %requests = tg.state @requests : tensor<2x6xi32>
  %pages = tg.state @page_table : tensor<2x2xi32>
  %k_cache = tg.state @k_cache.0 : tensor<4x1x8x16xf32>
  %v_cache = tg.state @v_cache.0 : tensor<4x1x8x16xf32>
  %q0 = tg.slice %qkv {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 32>} : (tensor<4x64xf32>) -> tensor<4x32xf32>
  %q1 = tg.reshape %q0 : (tensor<4x32xf32>) -> tensor<4x2x16xf32>
  %q = tg.rope %q1, %rows, %f : (tensor<4x2x16xf32>, tensor<4x4xi32>, tensor<8xf32>) -> tensor<4x2x16xf32>
  %k0 = tg.slice %qkv {offsets = array<i64: 0, 32>, sizes = array<i64: 4, 16>} : (tensor<4x64xf32>) -> tensor<4x16xf32>
  %k1 = tg.reshape %k0 : (tensor<4x16xf32>) -> tensor<4x1x16xf32>
  %k = tg.rope %k1, %rows, %f : (tensor<4x1x16xf32>, tensor<4x4xi32>, tensor<8xf32>) -> tensor<4x1x16xf32>
  %kc = tg.kv_append %k_cache, %k, %rows, %pages : (tensor<4x1x8x16xf32>, tensor<4x1x16xf32>, tensor<4x4xi32>, tensor<2x2xi32>) -> tensor<4x1x8x16xf32>
  tg.update @k_cache.0, %kc : tensor<4x1x8x16xf32>
  %v0 = tg.slice %qkv {offsets = array<i64: 0, 48>, sizes = array<i64: 4, 16>} : (tensor<4x64xf32>) -> tensor<4x16xf32>
  %v = tg.reshape %v0 : (tensor<4x16xf32>) -> tensor<4x1x16xf32>
  %vc = tg.kv_append %v_cache, %v, %rows, %pages : (tensor<4x1x8x16xf32>, tensor<4x1x16xf32>, tensor<4x4xi32>, tensor<2x2xi32>) -> tensor<4x1x8x16xf32>
  %o = tg.attention %q, %kc, %vc, %rows, %requests, %pages {scale = 0.25 : f64, softcap = 50.0 : f64, window = 7 : i64} : (tensor<4x2x16xf32>, tensor<4x1x8x16xf32>, tensor<4x1x8x16xf32>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x2xi32>) -> tensor<4x2x16xf32>
  %flat = tg.reshape %o : (tensor<4x2x16xf32>) -> tensor<4x32xf32>
  func.return %flat, %vc : tensor<4x32xf32>, tensor<4x1x8x16xf32>
}
