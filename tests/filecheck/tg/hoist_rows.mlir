// RUN: mpk-opt %s -p tg-hoist-rows | filecheck %s

// What follows the last attention of a step of prompts: rows are chosen of the residual and of the attention alone, once.
// CHECK-LABEL: func.func @end_of_a_layer
// CHECK-DAG: %[[H:.*]] = tg.last_rows %hidden, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
// CHECK-DAG: %[[A:.*]] = tg.last_rows %attended, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
// CHECK: %[[O:.*]] = tg.linear %[[A]], %wo
// CHECK: %[[X:.*]] = tg.add %[[H]], %[[O]]
// CHECK: %[[N:.*]] = tg.rms_norm %[[X]], %g
// CHECK-DAG: %[[GATE:.*]] = tg.linear %[[N]], %wg
// CHECK-DAG: %[[UP:.*]] = tg.linear %[[N]], %wu
// CHECK: %[[I:.*]] = tg.silu_mul %[[GATE]], %[[UP]]
// CHECK: %[[D:.*]] = tg.linear %[[I]], %wd
// CHECK: %[[Y:.*]] = tg.add %[[X]], %[[D]] : (tensor<2x16xf32>, tensor<2x16xf32>) -> tensor<2x16xf32>
// CHECK-NOT: tg.last_rows
// CHECK: func.return %[[Y]]
func.func @end_of_a_layer(%hidden: tensor<8x16xf32>, %attended: tensor<8x16xf32>, %requests: tensor<2x6xi32>, %g: tensor<16xf32>, %wo: tensor<16x16xf32>, %wg: tensor<24x16xf32>, %wu: tensor<24x16xf32>, %wd: tensor<16x24xf32>) -> tensor<2x16xf32> {
  %o = tg.linear %attended, %wo : (tensor<8x16xf32>, tensor<16x16xf32>) -> tensor<8x16xf32>
  %x = tg.add %hidden, %o : (tensor<8x16xf32>, tensor<8x16xf32>) -> tensor<8x16xf32>
  %n = tg.rms_norm %x, %g {eps = 1.0e-6 : f64} : (tensor<8x16xf32>, tensor<16xf32>) -> tensor<8x16xf32>
  %gate = tg.linear %n, %wg : (tensor<8x16xf32>, tensor<24x16xf32>) -> tensor<8x24xf32>
  %up = tg.linear %n, %wu : (tensor<8x16xf32>, tensor<24x16xf32>) -> tensor<8x24xf32>
  %i = tg.silu_mul %gate, %up : (tensor<8x24xf32>, tensor<8x24xf32>) -> tensor<8x24xf32>
  %d = tg.linear %i, %wd : (tensor<8x24xf32>, tensor<16x24xf32>) -> tensor<8x16xf32>
  %s = tg.add %x, %d : (tensor<8x16xf32>, tensor<8x16xf32>) -> tensor<8x16xf32>
  %y = tg.last_rows %s, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
  func.return %y : tensor<2x16xf32>
}

// A bias makes something of the zeros behind the rows there are.
// CHECK-LABEL: func.func @bias
// CHECK-NEXT: tg.linear %x, %w bias %b : (tensor<8x16xf32>
// CHECK-NEXT: tg.last_rows
func.func @bias(%x: tensor<8x16xf32>, %w: tensor<16x16xf32>, %b: tensor<16xf32>, %requests: tensor<2x6xi32>) -> tensor<2x16xf32> {
  %l = tg.linear %x, %w bias %b : (tensor<8x16xf32>, tensor<16x16xf32>, tensor<16xf32>) -> tensor<8x16xf32>
  %y = tg.last_rows %l, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
  func.return %y : tensor<2x16xf32>
}

// All rows are needed anyway.
// CHECK-LABEL: func.func @used_elsewhere
// CHECK-NEXT: %[[L:.*]] = tg.linear %x, %w
// CHECK-NEXT: %[[Y:.*]] = tg.last_rows %[[L]], %requests
// CHECK-NEXT: func.return %[[Y]], %[[L]]
func.func @used_elsewhere(%x: tensor<8x16xf32>, %w: tensor<16x16xf32>, %requests: tensor<2x6xi32>) -> (tensor<2x16xf32>, tensor<8x16xf32>) {
  %l = tg.linear %x, %w : (tensor<8x16xf32>, tensor<16x16xf32>) -> tensor<8x16xf32>
  %y = tg.last_rows %l, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
  func.return %y, %l : tensor<2x16xf32>, tensor<8x16xf32>
}

// One row for all is no row of its own.
// CHECK-LABEL: func.func @broadcast
// CHECK-NEXT: tg.mul %x, %v
// CHECK-NEXT: tg.last_rows
func.func @broadcast(%x: tensor<8x16xf32>, %v: tensor<1x16xf32>, %requests: tensor<2x6xi32>) -> tensor<2x16xf32> {
  %m = tg.mul %x, %v : (tensor<8x16xf32>, tensor<1x16xf32>) -> tensor<8x16xf32>
  %y = tg.last_rows %m, %requests : (tensor<8x16xf32>, tensor<2x6xi32>) -> tensor<2x16xf32>
  func.return %y : tensor<2x16xf32>
}
