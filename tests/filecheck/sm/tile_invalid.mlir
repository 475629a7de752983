// RUN: mpk-opt %s -p tile --split-input-file --verify-diagnostics

func.func @step(%x: tensor<8x64xf16>) -> tensor<8x64xf16> {
  // expected-error@+1 {{tile: elements of f16 have no task kind here}}
  %y = tg.silu %x : (tensor<8x64xf16>) -> tensor<8x64xf16>
  func.return %y : tensor<8x64xf16>
}

// -----

func.func @step(%x: tensor<8x64xbf16>) -> tensor<4x64xbf16> attributes {tg.ranks = 2 : i64} {
  // expected-error@+1 {{tile: tg.reduce_scatter along dimension 0, expected 1}}
  %y = tg.reduce_scatter %x {axis = 0 : i64, ranks = 2 : i64} : (tensor<8x64xbf16>) -> tensor<4x64xbf16>
  func.return %y : tensor<4x64xbf16>
}
