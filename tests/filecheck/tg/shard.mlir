// RUN: mpk-opt %s -p 'tg-shard{tp=4}' | filecheck %s

// A column-parallel and a row-parallel linear: one exchange, and the bias behind it.
// CHECK-LABEL: func.func @mlp
// CHECK-SAME: attributes {tg.ranks = 4 : i64}
// CHECK-NEXT: %[[W1:.*]] = tg.param @up {shards = [#tg.shard<dim = 0, parts = 4>]} : tensor<16x16xf32>
// CHECK-NEXT: %[[B1:.*]] = tg.param @up_bias {shards = [#tg.shard<dim = 0, parts = 4>]} : tensor<16xf32>
// CHECK-NEXT: %[[H:.*]] = tg.linear %x, %[[W1]] bias %[[B1]] : (tensor<4x16xf32>, tensor<16x16xf32>, tensor<16xf32>) -> tensor<4x16xf32>
// CHECK-NEXT: %[[A:.*]] = tg.silu %[[H]] : (tensor<4x16xf32>) -> tensor<4x16xf32>
// CHECK-NEXT: %[[W2:.*]] = tg.param @down {shards = [#tg.shard<dim = 1, parts = 4>]} : tensor<16x16xf32>
// CHECK-NEXT: %[[P:.*]] = tg.linear %[[A]], %[[W2]] : (tensor<4x16xf32>, tensor<16x16xf32>) -> tensor<4x16xf32>
// CHECK-NEXT: %[[S:.*]] = tg.all_reduce %[[P]] {ranks = 4 : i64} : (tensor<4x16xf32>) -> tensor<4x16xf32>
// CHECK-NEXT: %[[B2:.*]] = tg.param @down_bias : tensor<16xf32>
// CHECK-NEXT: %[[D:.*]] = tg.add %[[S]], %[[B2]]
// CHECK-NEXT: %[[Y:.*]] = tg.add %x, %[[D]]
// CHECK-NEXT: func.return %[[Y]]
func.func @mlp(%x: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %w1 = tg.param @up : tensor<64x16xf32>
  %b1 = tg.param @up_bias : tensor<64xf32>
  %h = tg.linear %x, %w1 bias %b1 : (tensor<4x16xf32>, tensor<64x16xf32>, tensor<64xf32>) -> tensor<4x64xf32>
  %a = tg.silu %h : (tensor<4x64xf32>) -> tensor<4x64xf32>
  %w2 = tg.param @down : tensor<16x64xf32>
  %b2 = tg.param @down_bias : tensor<16xf32>
  %d = tg.linear %a, %w2 bias %b2 : (tensor<4x64xf32>, tensor<16x64xf32>, tensor<16xf32>) -> tensor<4x16xf32>
  %y = tg.add %x, %d : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x16xf32>
  func.return %y : tensor<4x16xf32>
}

// Two key heads for four ranks: two ranks share one, in the weight as in the cache.
// CHECK-LABEL: func.func @attention
// CHECK: tg.param @q {shards = [#tg.shard<dim = 0, parts = 4>]} : tensor<2x16xf32>
// CHECK: tg.param @k {shards = [#tg.shard<dim = 0, parts = 2>]} : tensor<2x16xf32>
// CHECK: %[[CACHE:.*]] = tg.state @cache {shard = #tg.shard<dim = 1, parts = 2>} : tensor<2x1x4x2xf32>
// CHECK: %[[NEXT:.*]] = tg.kv_append %[[CACHE]], %{{.*}} -> tensor<2x1x4x2xf32>
// CHECK: tg.update @cache, %[[NEXT]] {shard = #tg.shard<dim = 1, parts = 2>} : tensor<2x1x4x2xf32>
// CHECK: tg.attention {{.*}} -> tensor<4x1x2xf32>
// CHECK: tg.param @o {shards = [#tg.shard<dim = 1, parts = 4>]} : tensor<16x2xf32>
// CHECK: tg.all_reduce
func.func @attention(%x: tensor<4x16xf32>) -> tensor<4x16xf32> {
  %rows = tg.state @rows : tensor<4x4xi32>
  %requests = tg.state @requests : tensor<1x6xi32>
  %pages = tg.state @page_table : tensor<1x2xi32>
  %wq = tg.param @q : tensor<8x16xf32>
  %q0 = tg.linear %x, %wq : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %q = tg.reshape %q0 : (tensor<4x8xf32>) -> tensor<4x4x2xf32>
  %wk = tg.param @k : tensor<4x16xf32>
  %k0 = tg.linear %x, %wk : (tensor<4x16xf32>, tensor<4x16xf32>) -> tensor<4x4xf32>
  %k = tg.reshape %k0 : (tensor<4x4xf32>) -> tensor<4x2x2xf32>
  %cache = tg.state @cache : tensor<2x2x4x2xf32>
  %c = tg.kv_append %cache, %k, %rows, %pages : (tensor<2x2x4x2xf32>, tensor<4x2x2xf32>, tensor<4x4xi32>, tensor<1x2xi32>) -> tensor<2x2x4x2xf32>
  tg.update @cache, %c : tensor<2x2x4x2xf32>
  %a = tg.attention %q, %c, %c, %rows, %requests, %pages {scale = 1.0 : f64} : (tensor<4x4x2xf32>, tensor<2x2x4x2xf32>, tensor<2x2x4x2xf32>, tensor<4x4xi32>, tensor<1x6xi32>, tensor<1x2xi32>) -> tensor<4x4x2xf32>
  %f = tg.reshape %a : (tensor<4x4x2xf32>) -> tensor<4x8xf32>
  %wo = tg.param @o : tensor<16x8xf32>
  %o = tg.linear %f, %wo : (tensor<4x8xf32>, tensor<16x8xf32>) -> tensor<4x16xf32>
  func.return %o : tensor<4x16xf32>
}

// A tied vocabulary is one param, in parts of rows for both of its users; a rank keeps its columns of the logits.
// CHECK-LABEL: func.func @vocabulary
// CHECK: %[[T:.*]] = tg.param @table {shards = [#tg.shard<dim = 0, parts = 4>]} : tensor<8x16xf32>
// CHECK-NEXT: %[[E:.*]] = tg.shard_embedding %[[T]], %ids : (tensor<8x16xf32>, tensor<4xi32>) -> tensor<4x16xf32>
// CHECK-NEXT: %[[X:.*]] = tg.all_reduce %[[E]] {ranks = 4 : i64}
// CHECK-NEXT: %[[L:.*]] = tg.linear %[[X]], %[[T]] : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
// CHECK-NEXT: tg.update @logits, %[[L]] {shard = #tg.shard<dim = 1, parts = 4>} : tensor<4x8xf32>
// CHECK-NEXT: %[[V:.*]], %[[I:.*]] = tg.shard_argmax %[[L]] : (tensor<4x8xf32>) -> (tensor<4x1xf32>, tensor<4x1xi32>)
// CHECK-NEXT: %[[VS:.*]] = tg.all_gather %[[V]] {axis = 1 : i64, ranks = 4 : i64}
// CHECK-NEXT: %[[IS:.*]] = tg.all_gather %[[I]] {axis = 1 : i64, ranks = 4 : i64}
// CHECK-NEXT: %[[S:.*]] = tg.pick_largest %[[VS]], %[[IS]] : (tensor<4x4xf32>, tensor<4x4xi32>) -> tensor<4xi32>
// CHECK-NEXT: func.return %[[S]]
func.func @vocabulary(%ids: tensor<4xi32>) -> tensor<4xi32> {
  %table = tg.param @table : tensor<32x16xf32>
  %x = tg.embedding %table, %ids : (tensor<32x16xf32>, tensor<4xi32>) -> tensor<4x16xf32>
  %logits = tg.linear %x, %table : (tensor<4x16xf32>, tensor<32x16xf32>) -> tensor<4x32xf32>
  tg.update @logits, %logits : tensor<4x32xf32>
  %s = tg.argmax %logits : (tensor<4x32xf32>) -> tensor<4xi32>
  func.return %s : tensor<4xi32>
}

// What needs all columns gets them once.
// CHECK-LABEL: func.func @gathered
// CHECK: %[[H:.*]] = tg.linear %x, %{{.*}} -> tensor<4x2xf32>
// CHECK-NEXT: %[[ALL:.*]] = tg.all_gather %[[H]] {axis = 1 : i64, ranks = 4 : i64} : (tensor<4x2xf32>) -> tensor<4x8xf32>
// CHECK-NEXT: %[[S:.*]] = tg.softmax %[[ALL]]
// CHECK-NEXT: func.return %[[S]], %[[ALL]]
func.func @gathered(%x: tensor<4x16xf32>) -> (tensor<4x8xf32>, tensor<4x8xf32>) {
  %w = tg.param @w : tensor<8x16xf32>
  %h = tg.linear %x, %w : (tensor<4x16xf32>, tensor<8x16xf32>) -> tensor<4x8xf32>
  %s = tg.softmax %h {axis = 1 : i64} : (tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %s, %h : tensor<4x8xf32>, tensor<4x8xf32>
}
