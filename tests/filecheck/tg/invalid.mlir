// RUN: mpk-opt %s --split-input-file --verify-diagnostics
// Each refusal names the op, the operand, what was found and what was expected.

func.func @f(%x: tensor<4x16xf32>, %w: tensor<32x8xf32>) {
  // expected-error@+1 {{tg.linear: operand 'weight' has shape [32, 8], expected [N, K] with K = 16 (as in 'x')}}
  %0 = tg.linear %x, %w : (tensor<4x16xf32>, tensor<32x8xf32>) -> tensor<4x32xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>) {
  // expected-error@+1 {{tg.linear: result 'result' has shape [4, 31], expected [R, N] with N = 32 (as in 'weight')}}
  %0 = tg.linear %x, %w : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x31xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xbf16>, %w: tensor<32x16xf32>) {
  // expected-error@+1 {{tg.linear: element type of operand 'weight': found f32, expected bf16 as in 'x'}}
  %0 = tg.linear %x, %w : (tensor<4x16xbf16>, tensor<32x16xf32>) -> tensor<4x32xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf64>) {
  // expected-error@+2 {{Expected one of bf16, f16, f32, but got f64}}
  %0 = tg.silu %x : (tensor<4x16xf64>) -> tensor<4x16xf64>
  func.return
}

// -----

func.func @f(%x: tensor<4x?xf32>) {
  // expected-error@+2 {{expected static shape, but got dynamic dimension}}
  %0 = tg.silu %x : (tensor<4x?xf32>) -> tensor<4x?xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>, %g: tensor<15xf32>) {
  // expected-error@+1 {{tg.rms_norm: operand 'weight' has shape [15], expected [D] with D = 16 (as in 'x')}}
  %0 = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<4x16xf32>, tensor<15xf32>) -> tensor<4x16xf32>
  func.return
}

// -----

func.func @f(%t: tensor<64x16xf32>, %ids: tensor<4x3xi32>) {
  // expected-error@+1 {{tg.embedding: shape of operand 'ids': found [4, 3], expected [4] or [4, 4]}}
  %0 = tg.embedding %t, %ids : (tensor<64x16xf32>, tensor<4x3xi32>) -> tensor<4x16xf32>
  func.return
}

// -----

func.func @f(%a: tensor<4x16xf32>, %b: tensor<3x16xf32>) {
  // expected-error@+1 {{tg.add: operand 'rhs' has shape [3, 16], expected one that broadcasts with [4, 16]}}
  %0 = tg.add %a, %b : (tensor<4x16xf32>, tensor<3x16xf32>) -> tensor<4x16xf32>
  func.return
}

// -----

func.func @f(%a: tensor<4x16xf32>, %b: tensor<17x2xf32>) {
  // expected-error@+1 {{tg.matmul: dimension -2 of operand 'rhs': found 17, expected 16 as in 'lhs'}}
  %0 = tg.matmul %a, %b : (tensor<4x16xf32>, tensor<17x2xf32>) -> tensor<4x2xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{tg.reshape: number of elements of result 'result': found 63, expected 64 as in 'x'}}
  %0 = tg.reshape %x : (tensor<4x16xf32>) -> tensor<63xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{tg.transpose: 'permutation': found [0, 0], expected a permutation of the 2 dimensions of 'x'}}
  %0 = tg.transpose %x {permutation = array<i64: 0, 0>} : (tensor<4x16xf32>) -> tensor<4x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{tg.slice: the slice: found offsets [0, 12] and sizes [4, 8], expected a box inside [4, 16]}}
  %0 = tg.slice %x {offsets = array<i64: 0, 12>, sizes = array<i64: 4, 8>} : (tensor<4x16xf32>) -> tensor<4x8xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>, %y: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.concat: shape of operand 'parts'[1]: found [4, 8], expected [4, 16]}}
  %0 = tg.concat %x, %y {axis = 0 : i64} : (tensor<4x16xf32>, tensor<4x8xf32>) -> tensor<8x16xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{tg.softmax: 'axis': found 2, expected one of the 2 dimensions of 'x'}}
  %0 = tg.softmax %x {axis = 2 : i64} : (tensor<4x16xf32>) -> tensor<4x16xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>) {
  // expected-error@+1 {{tg.reduce: shape of result 'result': found [4], expected [16]}}
  %0 = tg.reduce sum %x {axis = 0 : i64} : (tensor<4x16xf32>) -> tensor<4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x2x16xf32>, %rows: tensor<4x4xi32>, %f: tensor<16xf32>) {
  // expected-error@+1 {{tg.rope: size of operand 'inv_freq': found 16, expected half of D = 16 (as in 'x')}}
  %0 = tg.rope %x, %rows, %f : (tensor<4x2x16xf32>, tensor<4x4xi32>, tensor<16xf32>) -> tensor<4x2x16xf32>
  func.return
}

// -----

func.func @f(%c: tensor<8x2x8x16xf32>, %k: tensor<4x3x16xf32>, %rows: tensor<4x4xi32>, %p: tensor<2x4xi32>) {
  // expected-error@+1 {{tg.kv_append: operand 'new' has shape [4, 3, 16], expected [R, Hkv, D] with Hkv = 2 (as in 'cache')}}
  %0 = tg.kv_append %c, %k, %rows, %p : (tensor<8x2x8x16xf32>, tensor<4x3x16xf32>, tensor<4x4xi32>, tensor<2x4xi32>) -> tensor<8x2x8x16xf32>
  func.return
}

// -----

func.func @f(%q: tensor<4x3x16xf32>, %c: tensor<8x2x8x16xf32>, %rows: tensor<4x4xi32>, %b: tensor<2x6xi32>, %p: tensor<2x4xi32>) {
  // expected-error@+1 {{tg.attention: heads of operand 'q': found 3, expected a multiple of 2 (as in 'k_cache')}}
  %0 = tg.attention %q, %c, %c, %rows, %b, %p {scale = 1.0 : f64} : (tensor<4x3x16xf32>, tensor<8x2x8x16xf32>, tensor<8x2x8x16xf32>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> tensor<4x3x16xf32>
  func.return
}

// -----

func.func @f(%q: tensor<4x2x16xf32>, %c: tensor<8x2x8x16xf32>, %rows: tensor<4x4xi32>, %b: tensor<2x6xi32>, %p: tensor<2x4xi32>) {
  // expected-error@+1 {{tg.attention: 'window': found -1, expected 0 (none) or more}}
  %0 = tg.attention %q, %c, %c, %rows, %b, %p {scale = 1.0 : f64, window = -1 : i64} : (tensor<4x2x16xf32>, tensor<8x2x8x16xf32>, tensor<8x2x8x16xf32>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> tensor<4x2x16xf32>
  func.return
}

// -----

func.func @f(%s: tensor<4xi32>, %h: tensor<2x32xi32>, %b: tensor<2x5xi32>, %rows: tensor<4x4xi32>, %n: tensor<1xi32>) {
  // expected-error@+1 {{tg.advance: operand 'requests' has shape [2, 5], expected [B, 6] with 6 = 6 (always)}}
  %0, %1, %2, %3 = tg.advance %s, %h, %b, %rows, %n : (tensor<4xi32>, tensor<2x32xi32>, tensor<2x5xi32>, tensor<4x4xi32>, tensor<1xi32>) -> (tensor<2x32xi32>, tensor<2x5xi32>, tensor<4x4xi32>, tensor<1xi32>)
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>, %w: tensor<24x16xf32>) {
  // expected-error@+1 {{tg.fused_linear: rows of operand 'weight': found 24, expected a multiple of 16 (epilogue silu_mul)}}
  %0 = tg.fused_linear %x, %w {epilogue = #tg<epilogue silu_mul>} : (tensor<4x16xf32>, tensor<24x16xf32>) -> tensor<4x12xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x16xf32>, %w: tensor<32x16xf32>) {
  // expected-error@+1 {{tg.fused_linear: dimension 1 of result 'result': found 32, expected 16 (epilogue silu_mul)}}
  %0 = tg.fused_linear %x, %w {epilogue = #tg<epilogue silu_mul>} : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  func.return
}

// -----

func.func @f(%qkv: tensor<4x100xf32>, %c: tensor<8x2x8x16xf32>, %rows: tensor<4x4xi32>, %b: tensor<2x6xi32>, %p: tensor<2x4xi32>) {
  // expected-error@+1 {{tg.fused_attention: columns of operand 'qkv': found 100, expected 128 (heads + 2 kv_heads)}}
  %0, %1, %2 = tg.fused_attention %qkv, %c, %c, %rows, %b, %p {heads = 4 : i64, kv_heads = 2 : i64, head_dim = 16 : i64, scale = 1.0 : f64} : (tensor<4x100xf32>, tensor<8x2x8x16xf32>, tensor<8x2x8x16xf32>, tensor<4x4xi32>, tensor<2x6xi32>, tensor<2x4xi32>) -> (tensor<4x64xf32>, tensor<8x2x8x16xf32>, tensor<8x2x8x16xf32>)
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.param @w: 'interleave' with 1 sources, expected two}}
  %w = tg.param @w {interleave = 8 : i64} : tensor<32x16xf32>
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.param @w: dimension 0 is 24, expected a multiple of two blocks of 8 rows}}
  %w = tg.param @w {sources = ["a", "b"], interleave = 8 : i64} : tensor<24x16xf32>
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.param @w: 'interleave' of a scalar, expected rows}}
  %w = tg.param @w {sources = ["a", "b"], interleave = 8 : i64} : tensor<f32>
  func.return
}

// -----

func.func @f(%x: tensor<4xf32>) {
  %s = tg.state @s : tensor<5xf32>
  // expected-error@+1 {{tg.update @s: operand 'value': found tensor<4xf32>, expected the state's tensor<5xf32>}}
  tg.update @s, %x : tensor<4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4xf32>) {
  // expected-error@+1 {{tg.update @s: found a second update, expected one in a step}}
  tg.update @s, %x : tensor<4xf32>
  tg.update @s, %x : tensor<4xf32>
  func.return
}
