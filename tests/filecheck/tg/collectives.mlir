// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s --print-op-generic | mpk-opt | filecheck %s

// CHECK-LABEL: func.func @ops
func.func @ops(%x: tensor<4x8xf32>, %ids: tensor<4xi32>) {
  // CHECK: tg.all_reduce %x {ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %0 = tg.all_reduce %x {ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  // CHECK: tg.all_gather %x {axis = 0 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  %1 = tg.all_gather %x {axis = 0 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<8x8xf32>
  // CHECK: tg.reduce_scatter %x {axis = 1 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<4x4xf32>
  %2 = tg.reduce_scatter %x {axis = 1 : i64, ranks = 2 : i64} : (tensor<4x8xf32>) -> tensor<4x4xf32>
  // CHECK: %[[T:.*]] = tg.param @t {shards = [#tg.shard<dim = 1, parts = 2>]} : tensor<8x16xf32>
  %t = tg.param @t {shards = [#tg.shard<dim = 1, parts = 2>]} : tensor<8x16xf32>
  // CHECK: tg.shard_embedding %[[T]], %ids : (tensor<8x16xf32>, tensor<4xi32>) -> tensor<4x16xf32>
  %3 = tg.shard_embedding %t, %ids : (tensor<8x16xf32>, tensor<4xi32>) -> tensor<4x16xf32>
  // CHECK: tg.shard_argmax %x : (tensor<4x8xf32>) -> (tensor<4x1xf32>, tensor<4x1xi32>)
  %v, %i = tg.shard_argmax %x : (tensor<4x8xf32>) -> (tensor<4x1xf32>, tensor<4x1xi32>)
  // CHECK: tg.pick_largest %{{.*}}, %{{.*}} : (tensor<4x1xf32>, tensor<4x1xi32>) -> tensor<4xi32>
  %4 = tg.pick_largest %v, %i : (tensor<4x1xf32>, tensor<4x1xi32>) -> tensor<4xi32>
  func.return
}
