// RUN: mpk-opt %s -p tile --split-input-file --verify-diagnostics

// Weights are streamed ahead of every event, so they cannot be computed.
func.func @step(%x: tensor<8x32xbf16>, %m: tensor<64x32xbf16>) -> tensor<8x64xbf16> {
  %w = tg.silu %m : (tensor<64x32xbf16>) -> tensor<64x32xbf16>
  // expected-error@+1 {{linear: expected a parameter as weight, found a computed value}}
  %y = tg.linear %x, %w : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// -----

func.func @step(%x: tensor<8x20xbf16>) -> tensor<8x64xbf16> {
  %w = tg.param @w : tensor<64x20xbf16>
  // expected-error@+1 {{linear: the kernel reads 8 elements at once; 20 input columns do not divide}}
  %y = tg.linear %x, %w : (tensor<8x20xbf16>, tensor<64x20xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}
