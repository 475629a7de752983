// RUN: mpk-opt %s --split-input-file --verify-diagnostics

func.func @step(%logits: tensor<4x8xf32>) {
  // expected-error@+1 {{'k': found 9, expected 1 to 8, the experts in 'logits'}}
  %weights, %experts = tg.top_k_gate %logits {k = 9 : i64} : (tensor<4x8xf32>) -> (tensor<4x9xf32>, tensor<4x9xi32>)
  func.return
}

// -----

func.func @step(%x: tensor<4x32xbf16>, %w: tensor<100x32xbf16>, %e: tensor<4x2xi32>) {
  // expected-error@+1 {{'num_experts': found 8, expected a divisor of the 100 weight rows}}
  %y = tg.grouped_linear %x, %w, %e {num_experts = 8 : i64} : (tensor<4x32xbf16>, tensor<100x32xbf16>, tensor<4x2xi32>) -> tensor<4x2x12xbf16>
  func.return
}

// -----

func.func @step(%x: tensor<4x3x32xbf16>, %w: tensor<64x32xbf16>, %e: tensor<4x2xi32>) {
  // expected-error@+1 {{shape of operand 'x': found [4, 3, 32], expected [4, 32] or [4, 2, 32]}}
  %y = tg.grouped_linear %x, %w, %e {num_experts = 8 : i64} : (tensor<4x3x32xbf16>, tensor<64x32xbf16>, tensor<4x2xi32>) -> tensor<4x2x8xbf16>
  func.return
}

// -----

func.func @step(%x: tensor<4x32xbf16>, %w: tensor<64x32xbf16>, %e: tensor<4x2xi32>) {
  // expected-error@+1 {{columns of 'result': found 8, expected 4}}
  %y = tg.grouped_linear %x, %w, %e {num_experts = 8 : i64, gated} : (tensor<4x32xbf16>, tensor<64x32xbf16>, tensor<4x2xi32>) -> tensor<4x2x8xbf16>
  func.return
}
