// RUN: mpk-opt %s -p 'tile{target=h200 decide="tiles=2","v.tiles=3"}' | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=h200 decide="tiles=99"}' | filecheck %s --check-prefix MOST

// A value for all ops, another for those of one weight; an op takes the greatest choice up to it. An attribute is stronger.
func.func @step(%x: tensor<8x32xbf16>) -> (tensor<8x64xbf16>, tensor<8x64xbf16>, tensor<8x64xbf16>) {
  %u = tg.param @u : tensor<64x32xbf16>
  %v = tg.param @v : tensor<64x32xbf16>
  %w = tg.param @w : tensor<64x32xbf16>
  %a = tg.linear %x, %u : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  %b = tg.linear %x, %v : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  %c = tg.linear %x, %w {mpk.tile = {tiles = 4 : i64}} : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  func.return %a, %b, %c : tensor<8x64xbf16>, tensor<8x64xbf16>, tensor<8x64xbf16>
}

// CHECK: sm.grid @u "linear" {{.*}} over [2] {{.*}} reason "tiles = 2 given; by cost 1: 1 tiles a task
// CHECK: sm.grid @v "linear" {{.*}} over [2] {{.*}} reason "tiles = 3 given; by cost 1: 1 tiles a task
// CHECK: sm.grid @w "linear" {{.*}} over [1] {{.*}} reason "tiles = 4 by attribute

// MOST: sm.grid @u "linear" {{.*}} over [1] {{.*}} reason "tiles = 4 given; by cost 1
