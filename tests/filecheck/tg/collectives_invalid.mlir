// RUN: mpk-opt %s --split-input-file --verify-diagnostics

func.func @f(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.all_reduce: shape of result 'result': found [4, 4], expected [4, 8]}}
  %0 = tg.all_reduce %x {ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<4x4xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.all_reduce: 'ranks': found 0, expected 1 or more}}
  %0 = tg.all_reduce %x {ranks = 0 : i64} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.all_gather: shape of result 'result': found [8, 8], expected [4, 16]}}
  %0 = tg.all_gather %x {axis = 1 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.all_gather: 'axis': found 2, expected one of the 2 dimensions of 'x'}}
  %0 = tg.all_gather %x {axis = 2 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  func.return
}

// -----

func.func @f(%x: tensor<4x8xf32>) {
  // expected-error@+1 {{tg.reduce_scatter: dimension 1 of operand 'x': found 8, expected a multiple of 3 ('ranks')}}
  %0 = tg.reduce_scatter %x {axis = 1 : i64, ranks = 3 : i64} : (tensor<4x8xf32>) -> tensor<4x2xf32>
  func.return
}

// -----

func.func @f(%v: tensor<4x2xf32>, %i: tensor<4x3xi32>) {
  // expected-error@+1 {{tg.pick_largest: operand 'indices' has shape [4, 3], expected [R, N] with N = 2 (as in 'values')}}
  %0 = tg.pick_largest %v, %i : (tensor<4x2xf32>, tensor<4x3xi32>) -> tensor<4xi32>
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.param @w: 'shards': found dim 2, expected one of the 2 dimensions of the result}}
  %w = tg.param @w {shards = [#tg.shard<dim = 2, parts = 2>]} : tensor<4x8xf32>
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.param @w: 'shards': found 1, expected one for each of the 2 sources}}
  %w = tg.param @w {sources = ["a", "b"], shards = [#tg.shard<dim = 0, parts = 2>]} : tensor<4x8xf32>
  func.return
}

// -----

func.func @f() {
  // expected-error@+1 {{tg.shard: 'parts': found 0, expected 1 or more}}
  %w = tg.param @w {shards = [#tg.shard<dim = 0, parts = 0>]} : tensor<4x8xf32>
  func.return
}

// -----

func.func @f() {
  %s = tg.state @s {shard = #tg.shard<dim = 0, parts = 2>} : tensor<4x8xf32>
  // expected-error@+1 {{tg.update @s: 'shard': found #tg.shard<dim = 1, parts = 2>, expected the state's #tg.shard<dim = 0, parts = 2>}}
  tg.update @s, %s {shard = #tg.shard<dim = 1, parts = 2>} : tensor<4x8xf32>
  func.return
}
