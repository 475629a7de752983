// RUN: mpk-opt %s -p 'tile{target=h200}' --split-input-file --verify-diagnostics | filecheck %s

// An attribute decides instead of the cost model; the reason says both.
func.func @step(%x: tensor<8x32xbf16>) -> tensor<8x64xbf16> {
  %w = tg.param @w : tensor<64x32xbf16>
  %y = tg.linear %x, %w {mpk.tile = {tiles = 2 : i64}} : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// CHECK: sm.grid @w "linear" {{.*}} tiles = 2 : i64, {{.*}} over [2] {{.*}} reason "tiles = 2 by attribute; by cost 1: 1 tiles a task

// -----

func.func @outside(%x: tensor<8x32xbf16>) -> tensor<8x64xbf16> {
  %w = tg.param @w : tensor<64x32xbf16>
  // expected-error@+1 {{attribute 'mpk.tile': tiles = 9, expected 1 to 4}}
  %y = tg.linear %x, %w {mpk.tile = {tiles = 9 : i64}} : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// -----

func.func @mistyped(%x: tensor<8x32xbf16>) -> tensor<8x64xbf16> {
  %w = tg.param @w : tensor<64x32xbf16>
  // expected-error@+1 {{attribute 'mpk.tile': 'tg.linear' decides nothing called 'tile'}}
  %y = tg.linear %x, %w {mpk.tile = {tile = 2 : i64}} : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// -----

func.func @no_decision(%x: tensor<8x32xbf16>) -> tensor<8x32xbf16> {
  // expected-error@+1 {{attribute 'mpk.tile': 'tg.silu' decides nothing called 'tiles'}}
  %y = tg.silu %x {mpk.tile = {tiles = 2 : i64}} : (tensor<8x32xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}
