// RUN: mpk-opt %s -p tile --split-input-file --verify-diagnostics

func.func @step(%x: tensor<8x64xf16>) -> tensor<8x64xf16> {
  // expected-error@+1 {{tile: elements of f16 have no task kind here}}
  %y = tg.silu %x : (tensor<8x64xf16>) -> tensor<8x64xf16>
  func.return %y : tensor<8x64xf16>
}

// -----

func.func @step(%x: tensor<8x6x8xbf16>, %rows: tensor<8x4xi32>) -> tensor<8x6x8xbf16> {
  %f = tg.param @f : tensor<4xf32>
  // expected-error@+1 {{tile: rope with interleaved pairs has no task kind}}
  %y = tg.rope %x, %rows, %f {interleaved} : (tensor<8x6x8xbf16>, tensor<8x4xi32>, tensor<4xf32>) -> tensor<8x6x8xbf16>
  func.return %y : tensor<8x6x8xbf16>
}
