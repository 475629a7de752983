// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=sim}' | filecheck %s --check-prefix TILE

// CHECK:      tg.compare lt %x, %z : (tensor<4x6xf32>, tensor<6xf32>) -> tensor<4x6xi32>
// CHECK-NEXT: tg.select %{{.*}}, %x, %z : (tensor<4x6xi32>, tensor<4x6xf32>, tensor<6xf32>) -> tensor<4x6xf32>
// CHECK-NEXT: tg.broadcast %{{.*}} : (tensor<4x6xf32>) -> tensor<2x4x6xf32>
// CHECK-NEXT: tg.gather %x, %ids : (tensor<4x6xf32>, tensor<2xi32>) -> tensor<2x6xf32>
// CHECK-NEXT: tg.index_copy %x, %ids, %{{.*}} {axis = 0 : i64} : (tensor<4x6xf32>, tensor<2xi32>, tensor<2x6xf32>) -> tensor<4x6xf32>

// The comparison runs in the select's grid; the transpose and the broadcast are steps through memory.
// TILE:     sm.grid @select "map" {{.*}} expression = "select(lt(in0,in1),in0,in1)"
// TILE:     sm.grid @gather "gather"
// TILE:     sm.grid @copy "map" {{.*}} expression = "in0"
// TILE:     sm.grid @index_copy "index_copy"
// TILE-NOT: sm.grid @broadcast
func.func @f(%x: tensor<4x6xf32>, %z: tensor<6xf32>, %ids: tensor<2xi32>) -> (tensor<2x4x6xf32>, tensor<4x6xf32>) {
  %c = tg.compare lt %x, %z : (tensor<4x6xf32>, tensor<6xf32>) -> tensor<4x6xi32>
  %s = tg.select %c, %x, %z : (tensor<4x6xi32>, tensor<4x6xf32>, tensor<6xf32>) -> tensor<4x6xf32>
  %b = tg.broadcast %s : (tensor<4x6xf32>) -> tensor<2x4x6xf32>
  %g = tg.gather %x, %ids : (tensor<4x6xf32>, tensor<2xi32>) -> tensor<2x6xf32>
  %i = tg.index_copy %x, %ids, %g {axis = 0 : i64} : (tensor<4x6xf32>, tensor<2xi32>, tensor<2x6xf32>) -> tensor<4x6xf32>
  func.return %b, %i : tensor<2x4x6xf32>, tensor<4x6xf32>
}
