// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s --print-op-generic | mpk-opt | filecheck %s
// Every op, in both syntaxes and back.

func.func @values() {
  // CHECK: %w = tg.param @model.layers.0.q_proj.weight : tensor<32x16xbf16>
  %w = tg.param @model.layers.0.q_proj.weight : tensor<32x16xbf16>
  // CHECK-NEXT: %stacked = tg.param @gate_up {sources = ["gate", "up"], interleave = 8 : i64} : tensor<32x16xbf16>
  %stacked = tg.param @gate_up {sources = ["gate", "up"], interleave = 8 : i64} : tensor<32x16xbf16>
  // CHECK-NEXT: %c = tg.constant dense<[1.000000e+00, 5.000000e-01]> : tensor<2xf32>
  %c = tg.constant dense<[1.0, 0.5]> : tensor<2xf32>
  // CHECK-NEXT: %rows = tg.state @rows : tensor<8x4xi32>
  %rows = tg.state @rows : tensor<8x4xi32>
  // CHECK-NEXT: tg.update @rows, %rows : tensor<8x4xi32>
  tg.update @rows, %rows : tensor<8x4xi32>
  func.return
}

// CHECK-LABEL: func.func @products
func.func @products(%x: tensor<4x16xbf16>, %w: tensor<32x16xbf16>, %b: tensor<32xbf16>, %g: tensor<16xbf16>) {
  %rows = tg.state @rows : tensor<4x4xi32>
  %table = tg.param @table : tensor<64x16xbf16>
  // CHECK: tg.embedding %table, %rows : (tensor<64x16xbf16>, tensor<4x4xi32>) -> tensor<4x16xbf16>
  %0 = tg.embedding %table, %rows : (tensor<64x16xbf16>, tensor<4x4xi32>) -> tensor<4x16xbf16>
  // CHECK-NEXT: tg.linear %x, %w : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xf32>
  %1 = tg.linear %x, %w : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xf32>
  // CHECK-NEXT: tg.linear %x, %w bias %b : (tensor<4x16xbf16>, tensor<32x16xbf16>, tensor<32xbf16>) -> tensor<4x32xbf16>
  %2 = tg.linear %x, %w bias %b : (tensor<4x16xbf16>, tensor<32x16xbf16>, tensor<32xbf16>) -> tensor<4x32xbf16>
  // CHECK-NEXT: tg.rms_norm %x, %g {eps = 1.000000e-06 : f64} : (tensor<4x16xbf16>, tensor<16xbf16>) -> tensor<4x16xbf16>
  %3 = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xbf16>, tensor<16xbf16>) -> tensor<4x16xbf16>
  // CHECK-NEXT: tg.layer_norm %x, %g, %g {eps = 1.000000e-05 : f64} : (tensor<4x16xbf16>, tensor<16xbf16>, tensor<16xbf16>) -> tensor<4x16xbf16>
  %4 = tg.layer_norm %x, %g, %g {eps = 1.0e-5 : f64} : (tensor<4x16xbf16>, tensor<16xbf16>, tensor<16xbf16>) -> tensor<4x16xbf16>
  // CHECK-NEXT: tg.transpose %w {permutation = array<i64: 1, 0>} : (tensor<32x16xbf16>) -> tensor<16x32xbf16>
  %5 = tg.transpose %w {permutation = array<i64: 1, 0>} : (tensor<32x16xbf16>) -> tensor<16x32xbf16>
  // CHECK-NEXT: tg.matmul %x, %{{.*}} : (tensor<4x16xbf16>, tensor<16x32xbf16>) -> tensor<4x32xbf16>
  %6 = tg.matmul %x, %5 : (tensor<4x16xbf16>, tensor<16x32xbf16>) -> tensor<4x32xbf16>
  func.return
}

// CHECK-LABEL: func.func @elements
func.func @elements(%x: tensor<4x16xf32>, %row: tensor<16xf32>, %i: tensor<4xi32>) {
  // CHECK: tg.add %x, %row : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %0 = tg.add %x, %row : (tensor<4x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.sub %row, %x : (tensor<16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %1 = tg.sub %row, %x : (tensor<16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.mul %x, %x
  %2 = tg.mul %x, %x : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.div %i, %i : (tensor<4xi32>, tensor<4xi32>) -> tensor<4xi32>
  %3 = tg.div %i, %i : (tensor<4xi32>, tensor<4xi32>) -> tensor<4xi32>
  // CHECK-NEXT: tg.neg %x
  %4 = tg.neg %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.exp %x
  %5 = tg.exp %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.rsqrt %x
  %6 = tg.rsqrt %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.sigmoid %x
  %7 = tg.sigmoid %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.tanh %x
  %8 = tg.tanh %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.silu %x
  %9 = tg.silu %x : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.gelu %x {approximate} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  %10 = tg.gelu %x {approximate} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.silu_mul %x, %x
  %11 = tg.silu_mul %x, %x : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.gelu_mul %x, %x : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  %12 = tg.gelu_mul %x, %x : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.softmax %x {axis = 1 : i64} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  %13 = tg.softmax %x {axis = 1 : i64} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  // CHECK-NEXT: tg.reduce mean %x {axis = 0 : i64} : (tensor<4x16xf32>) -> tensor<16xf32>
  %14 = tg.reduce mean %x {axis = 0 : i64} : (tensor<4x16xf32>) -> tensor<16xf32>
  // CHECK-NEXT: tg.argmax %x : (tensor<4x16xf32>) -> tensor<4xi32>
  %15 = tg.argmax %x : (tensor<4x16xf32>) -> tensor<4xi32>
  // CHECK-NEXT: tg.reshape %x : (tensor<4x16xf32>) -> tensor<4x2x8xf32>
  %16 = tg.reshape %x : (tensor<4x16xf32>) -> tensor<4x2x8xf32>
  // CHECK-NEXT: tg.slice %x {offsets = array<i64: 1, 4>, sizes = array<i64: 2, 8>} : (tensor<4x16xf32>) -> tensor<2x8xf32>
  %17 = tg.slice %x {offsets = array<i64: 1, 4>, sizes = array<i64: 2, 8>} : (tensor<4x16xf32>) -> tensor<2x8xf32>
  // CHECK-NEXT: tg.concat %x, %x {axis = 0 : i64} : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<8x16xf32>
  %18 = tg.concat %x, %x {axis = 0 : i64} : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<8x16xf32>
  // CHECK-NEXT: tg.cast %x : (tensor<4x16xf32>) -> tensor<4x16xbf16>
  %19 = tg.cast %x : (tensor<4x16xf32>) -> tensor<4x16xbf16>
  func.return
}

// CHECK-LABEL: func.func @attention
func.func @attention(%q: tensor<4x4x16xbf16>, %k: tensor<4x2x16xbf16>, %qkv: tensor<4x128xbf16>, %g: tensor<16xbf16>) {
  %history = tg.state @history : tensor<2x32xi32>
  %requests = tg.state @requests : tensor<2x6xi32>
  %rows = tg.state @rows : tensor<4x4xi32>
  %count = tg.state @row_count : tensor<1xi32>
  %pages = tg.state @page_table : tensor<2x4xi32>
  %cache = tg.state @k_cache.0 : tensor<8x2x8x16xbf16>
  %inv_freq = tg.param @inv_freq : tensor<8xf32>
  // CHECK: tg.rope %q, %rows, %inv_freq {scaling = 1.500000e+00 : f64, interleaved} : (tensor<4x4x16xbf16>, tensor<4x4xi32>, tensor<8xf32>) -> tensor<4x4x16xbf16>
  %0 = tg.rope %q, %rows, %inv_freq {scaling = 1.5 : f64, interleaved} : (tensor<4x4x16xbf16>, tensor<4x4xi32>, tensor<8xf32>) -> tensor<4x4x16xbf16>
  // CHECK-NEXT: %appended = tg.kv_append %cache, %k, %rows, %pages : (tensor<8x2x8x16xbf16>, tensor<4x2x16xbf16>, tensor<4x4xi32>, tensor<2x4xi32>) -> tensor<8x2x8x16xbf16>
  %appended = tg.kv_append %cache, %k, %rows, %pages : (tensor<8x2x8x16xbf16>, tensor<4x2x16xbf16>, tensor<4x4xi32>, tensor<2x4xi32>) -> tensor<8x2x8x16xbf16>
  // CHECK-NEXT: tg.attention %q, %appended, %appended, %rows, %requests, %pages {scale = 2.500000e-01 : f64} :
  %1 = tg.attention %q, %appended, %appended, %rows, %requests, %pages {scale = 0.25 : f64} : (tensor<4x4x16xbf16>, tensor<8x2x8x16xbf16>, tensor<8x2x8x16xbf16>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> tensor<4x4x16xbf16>
  %sampled = tg.param @sampled : tensor<4xi32>
  // CHECK: tg.advance %sampled, %history, %requests, %rows, %count {stop_tokens = array<i64: 2, 3>} :
  %2, %3, %4, %5 = tg.advance %sampled, %history, %requests, %rows, %count {stop_tokens = array<i64: 2, 3>} : (tensor<4xi32>, tensor<2x32xi32>, tensor<2x6xi32>, tensor<4x4xi32>, tensor<1xi32>) -> (tensor<2x32xi32>, tensor<2x6xi32>, tensor<4x4xi32>, tensor<1xi32>)
  // CHECK-NEXT: tg.fused_attention %qkv, %cache, %cache, %rows, %requests, %pages rope %inv_freq : tensor<8xf32> {heads = 4 : i64, kv_heads = 2 : i64, head_dim = 16 : i64, scale = 2.500000e-01 : f64} :
  %6, %7, %8 = tg.fused_attention %qkv, %cache, %cache, %rows, %requests, %pages rope %inv_freq : tensor<8xf32> {heads = 4 : i64, kv_heads = 2 : i64, head_dim = 16 : i64, scale = 0.25 : f64} : (tensor<4x128xbf16>, tensor<8x2x8x16xbf16>, tensor<8x2x8x16xbf16>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> (tensor<4x64xbf16>, tensor<8x2x8x16xbf16>, tensor<8x2x8x16xbf16>)
  // CHECK-NEXT: q_norm %g : tensor<16xbf16> k_norm %g : tensor<16xbf16> {heads
  %9, %10, %11 = tg.fused_attention %qkv, %cache, %cache, %rows, %requests, %pages q_norm %g : tensor<16xbf16> k_norm %g : tensor<16xbf16> {heads = 4 : i64, kv_heads = 2 : i64, head_dim = 16 : i64, scale = 0.25 : f64, eps = 1.0e-6 : f64} : (tensor<4x128xbf16>, tensor<8x2x8x16xbf16>, tensor<8x2x8x16xbf16>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> (tensor<4x64xbf16>, tensor<8x2x8x16xbf16>, tensor<8x2x8x16xbf16>)
  func.return
}

// CHECK-LABEL: func.func @fused_linear
func.func @fused_linear(%x: tensor<4x16xbf16>, %w: tensor<32x16xbf16>, %b: tensor<32xbf16>, %g: tensor<16xbf16>, %r: tensor<4x32xbf16>, %h: tensor<4x16xbf16>) {
  // CHECK: tg.fused_linear %x, %w : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xbf16>
  %0 = tg.fused_linear %x, %w : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xbf16>
  // CHECK-NEXT: tg.fused_linear %x, %w bias %b : tensor<32xbf16> norm %g : tensor<16xbf16> residual %h : tensor<4x16xbf16> {eps = 1.000000e-06 : f64, epilogue = #tg<epilogue silu_mul>} : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x16xbf16>
  %1 = tg.fused_linear %x, %w bias %b : tensor<32xbf16> norm %g : tensor<16xbf16> residual %h : tensor<4x16xbf16> {eps = 1.0e-6 : f64, epilogue = #tg<epilogue silu_mul>} : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x16xbf16>
  // CHECK-NEXT: tg.fused_linear %x, %w residual %r : tensor<4x32xbf16> : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xbf16>
  %2 = tg.fused_linear %x, %w residual %r : tensor<4x32xbf16> : (tensor<4x16xbf16>, tensor<32x16xbf16>) -> tensor<4x32xbf16>
  func.return
}
