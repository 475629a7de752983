// RUN: mpk-opt %s -p tg-canonicalize | filecheck %s
// RUN: mpk-opt %s -p tg-canonicalize,tg-canonicalize | filecheck %s

// Reshapes there and back, casts and slices to the same type are nothing.
// CHECK-LABEL: func.func @identities
// CHECK-NEXT: func.return %x
func.func @identities(%x: tensor<4x16xbf16>) -> tensor<4x16xbf16> {
  %0 = tg.reshape %x : (tensor<4x16xbf16>) -> tensor<4x2x8xbf16>
  %1 = tg.reshape %0 : (tensor<4x2x8xbf16>) -> tensor<4x16xbf16>
  %2 = tg.cast %1 : (tensor<4x16xbf16>) -> tensor<4x16xbf16>
  %3 = tg.slice %2 {offsets = array<i64: 0, 0>, sizes = array<i64: 4, 16>} : (tensor<4x16xbf16>) -> tensor<4x16xbf16>
  %4 = tg.concat %3 {axis = 1 : i64} : (tensor<4x16xbf16>) -> tensor<4x16xbf16>
  %5 = tg.transpose %4 {permutation = array<i64: 0, 1>} : (tensor<4x16xbf16>) -> tensor<4x16xbf16>
  func.return %5 : tensor<4x16xbf16>
}

// CHECK-LABEL: func.func @compositions
// CHECK-NEXT: tg.reshape %x : (tensor<2x3x4xf32>) -> tensor<24xf32>
// CHECK-NEXT: tg.transpose %x {permutation = array<i64: 2, 0, 1>} : (tensor<2x3x4xf32>) -> tensor<4x2x3xf32>
// CHECK-NEXT: tg.slice %x {offsets = array<i64: 1, 1, 2>, sizes = array<i64: 1, 1, 1>} : (tensor<2x3x4xf32>) -> tensor<1x1x1xf32>
// CHECK-NEXT: func.return
func.func @compositions(%x: tensor<2x3x4xf32>) -> (tensor<24xf32>, tensor<4x2x3xf32>, tensor<1x1x1xf32>) {
  %0 = tg.reshape %x : (tensor<2x3x4xf32>) -> tensor<6x4xf32>
  %1 = tg.reshape %0 : (tensor<6x4xf32>) -> tensor<24xf32>
  %2 = tg.transpose %x {permutation = array<i64: 1, 2, 0>} : (tensor<2x3x4xf32>) -> tensor<3x4x2xf32>
  %3 = tg.transpose %2 {permutation = array<i64: 1, 2, 0>} : (tensor<3x4x2xf32>) -> tensor<4x2x3xf32>
  %4 = tg.slice %x {offsets = array<i64: 1, 0, 1>, sizes = array<i64: 1, 2, 3>} : (tensor<2x3x4xf32>) -> tensor<1x2x3xf32>
  %5 = tg.slice %4 {offsets = array<i64: 0, 1, 1>, sizes = array<i64: 1, 1, 1>} : (tensor<1x2x3xf32>) -> tensor<1x1x1xf32>
  func.return %1, %3, %5 : tensor<24xf32>, tensor<4x2x3xf32>, tensor<1x1x1xf32>
}

// min(x, 1), max(x, 1) and x modulo 1 are not x.
// CHECK-LABEL: func.func @one_is_not_always_neutral
// CHECK-NEXT: tg.constant
// CHECK-NEXT: %[[A:.*]] = tg.minimum %x
// CHECK-NEXT: %[[B:.*]] = tg.maximum %x
// CHECK-NEXT: %[[C:.*]] = tg.remainder %x
// CHECK-NEXT: func.return %[[A]], %[[B]], %[[C]]
func.func @one_is_not_always_neutral(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>) {
  %one = tg.constant dense<1.0> : tensor<1xf32>
  %0 = tg.minimum %x, %one : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  %1 = tg.maximum %x, %one : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  %2 = tg.remainder %x, %one : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  func.return %0, %1, %2 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>
}

// 0 - x and 1 / x are not x; a constant that widens the shape stays.
// CHECK-LABEL: func.func @constants
// CHECK-DAG: %zero = tg.constant
// CHECK-DAG: %one = tg.constant
// CHECK-NEXT: %[[A:.*]] = tg.sub %zero, %x
// CHECK-NEXT: %[[B:.*]] = tg.div %one, %x
// CHECK-NEXT: %[[C:.*]] = tg.add %x, %wide
// CHECK-NEXT: func.return %x, %x, %x, %x, %[[A]], %[[B]], %[[C]]
func.func @constants(%x: tensor<4xf32>, %wide: tensor<2x4xf32>) -> (tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<2x4xf32>) {
  %zero = tg.constant dense<0.0> : tensor<4xf32>
  %one = tg.constant dense<1.0> : tensor<1xf32>
  %0 = tg.add %zero, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %1 = tg.sub %x, %zero : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %2 = tg.mul %x, %one : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  %3 = tg.div %x, %one : (tensor<4xf32>, tensor<1xf32>) -> tensor<4xf32>
  %4 = tg.sub %zero, %x : (tensor<4xf32>, tensor<4xf32>) -> tensor<4xf32>
  %5 = tg.div %one, %x : (tensor<1xf32>, tensor<4xf32>) -> tensor<4xf32>
  %6 = tg.add %x, %wide : (tensor<4xf32>, tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %0, %1, %2, %3, %4, %5, %6 : tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<4xf32>, tensor<2x4xf32>
}

// To f32 and back loses nothing; to bf16 and back does.
// CHECK-LABEL: func.func @casts
// CHECK-NEXT: %[[A:.*]] = tg.cast %wide
// CHECK-NEXT: %[[B:.*]] = tg.cast %[[A]]
// CHECK-NEXT: func.return %narrow, %[[B]]
func.func @casts(%narrow: tensor<4xbf16>, %wide: tensor<4xf32>) -> (tensor<4xbf16>, tensor<4xf32>) {
  %0 = tg.cast %narrow : (tensor<4xbf16>) -> tensor<4xf32>
  %1 = tg.cast %0 : (tensor<4xf32>) -> tensor<4xbf16>
  %2 = tg.cast %wide : (tensor<4xf32>) -> tensor<4xbf16>
  %3 = tg.cast %2 : (tensor<4xbf16>) -> tensor<4xf32>
  func.return %1, %3 : tensor<4xbf16>, tensor<4xf32>
}

// CHECK-LABEL: func.func @negations
// CHECK-NEXT: %[[A:.*]] = tg.neg %x
// CHECK-NEXT: func.return %[[A]]
func.func @negations(%x: tensor<4xf32>) -> tensor<4xf32> {
  %0 = tg.neg %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = tg.neg %0 : (tensor<4xf32>) -> tensor<4xf32>
  %2 = tg.neg %1 : (tensor<4xf32>) -> tensor<4xf32>
  func.return %2 : tensor<4xf32>
}
