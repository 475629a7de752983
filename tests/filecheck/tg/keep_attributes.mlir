// RUN: mpk-opt %s -p tg-merge-linears,tg-fuse | filecheck %s
// RUN: mpk-opt %s -p 'tg-merge-linears,tg-fuse,tile{target=h200}' | filecheck %s --check-prefix TILES

// What an op says of its own tiles outlives merging and fusion. Linears that say different things stay apart.
func.func @step(%x: tensor<8x64xbf16>) -> (tensor<8x64xbf16>, tensor<8x64xbf16>) {
  %n = tg.param @n : tensor<64xbf16>
  %h = tg.rms_norm %x, %n {eps = 1.000000e-06 : f64} : (tensor<8x64xbf16>, tensor<64xbf16>) -> tensor<8x64xbf16>
  %wa = tg.param @a : tensor<64x64xbf16>
  %wb = tg.param @b : tensor<64x64xbf16>
  %wc = tg.param @c : tensor<64x64xbf16>
  %a = tg.linear %h, %wa {mpk.tile = {tiles = 2 : i64}} : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %b = tg.linear %h, %wb {mpk.tile = {tiles = 2 : i64}} : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %c = tg.linear %h, %wc : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %ab = tg.mul %a, %b : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %r = tg.add %x, %c : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
  func.return %ab, %r : tensor<8x64xbf16>, tensor<8x64xbf16>
}

// CHECK: tg.param @{{.*}} {sources = ["a", "b"]} : tensor<128x64xbf16>
// CHECK: tg.fused_linear %x, {{.*}}mpk.tile = {tiles = 2 : i64}{{.*}} -> tensor<8x128xbf16>
// CHECK-NOT: mpk.tile

// TILES: sm.grid @"a+b" "linear" {n = 128 : i64, k = 64 : i64, tiles = 2 : i64
// TILES: sm.grid @c "linear" {n = 64 : i64, k = 64 : i64, tiles = 1 : i64
