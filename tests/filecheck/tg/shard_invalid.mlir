// RUN: mpk-opt %s -p 'tg-shard{tp=4}' --split-input-file --verify-diagnostics
// What cannot be split is named, with what was found and what would do.

func.func @f(%x: tensor<4x16xf32>) -> tensor<4x18xf32> {
  %w = tg.param @w : tensor<18x16xf32>
  // expected-error@+1 {{the columns of tg.linear 'h' (@w): found 18, expected a multiple of 4 ranks}}
  %h = tg.linear %x, %w : (tensor<4x16xf32>, tensor<18x16xf32>) -> tensor<4x18xf32>
  func.return %h : tensor<4x18xf32>
}

// -----

func.func @f(%x: tensor<4x16xf32>) -> tensor<4x3x4xf32> {
  %w = tg.param @w : tensor<12x16xf32>
  // expected-error@+1 {{the heads of tg.linear 'h' (@w): found 3, expected a multiple of 4 ranks, or for k and v a divisor of 4}}
  %h = tg.linear %x, %w : (tensor<4x16xf32>, tensor<12x16xf32>) -> tensor<4x12xf32>
  %y = tg.reshape %h : (tensor<4x12xf32>) -> tensor<4x3x4xf32>
  func.return %y : tensor<4x3x4xf32>
}

// -----

func.func @f(%x: tensor<4x16xf32>) -> tensor<4x2x4xf32> {
  %w = tg.param @w : tensor<8x16xf32>
  %h = tg.linear %x, %w : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %y = tg.reshape %h : (tensor<4x8xf32>) -> tensor<4x2x4xf32>
  // expected-error@+1 {{'y' is in 2 parts, found a user that needs it whole on 4 ranks, expected attention only}}
  func.return %y : tensor<4x2x4xf32>
}

// -----

func.func @f(%ids: tensor<4xi32>) -> tensor<4x16xf32> {
  %table = tg.param @table : tensor<30x16xf32>
  // expected-error@+1 {{the rows of the embedding @table: found 30, expected a multiple of 4 ranks}}
  %x = tg.embedding %table, %ids : (tensor<30x16xf32>, tensor<4xi32>) -> tensor<4x16xf32>
  func.return %x : tensor<4x16xf32>
}
