// RUN: mpk-opt %s -p tg-raise --split-input-file | filecheck %s

// A norm of decomposed ops, weight first, through casts.
// CHECK-LABEL: func.func @norm
// CHECK:         %[[Y:.*]] = tg.rms_norm %x, %w {eps = 1.000000e-06 : f64} : (tensor<4x8xbf16>, tensor<8xbf16>) -> tensor<4x8xbf16>
// CHECK-NEXT:    func.return %[[Y]]
func.func @norm(%x: tensor<4x8xbf16>, %w: tensor<8xbf16>) -> tensor<4x8xbf16> {
  %wide = tg.cast %x : (tensor<4x8xbf16>) -> tensor<4x8xf32>
  %square = tg.mul %wide, %wide : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %mean = tg.reduce mean %square {axis = 1 : i64} : (tensor<4x8xf32>) -> tensor<4xf32>
  %kept = tg.reshape %mean : (tensor<4xf32>) -> tensor<4x1xf32>
  %eps = tg.constant dense<1.0e-6> : tensor<1xf32>
  %sum = tg.add %eps, %kept : (tensor<1xf32>, tensor<4x1xf32>) -> tensor<4x1xf32>
  %scale = tg.rsqrt %sum : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %normed = tg.mul %scale, %wide : (tensor<4x1xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %narrow = tg.cast %normed : (tensor<4x8xf32>) -> tensor<4x8xbf16>
  %y = tg.mul %w, %narrow : (tensor<8xbf16>, tensor<4x8xbf16>) -> tensor<4x8xbf16>
  func.return %y : tensor<4x8xbf16>
}

// -----

// The mean of another value's squares is no norm of x.
// CHECK-LABEL: func.func @other
// CHECK-NOT:     tg.rms_norm
func.func @other(%x: tensor<4x8xf32>, %z: tensor<4x8xf32>, %w: tensor<8xf32>) -> tensor<4x8xf32> {
  %square = tg.mul %z, %z : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %mean = tg.reduce mean %square {axis = 1 : i64} : (tensor<4x8xf32>) -> tensor<4xf32>
  %kept = tg.reshape %mean : (tensor<4xf32>) -> tensor<4x1xf32>
  %eps = tg.constant dense<1.0e-6> : tensor<1xf32>
  %sum = tg.add %kept, %eps : (tensor<4x1xf32>, tensor<1xf32>) -> tensor<4x1xf32>
  %scale = tg.rsqrt %sum : (tensor<4x1xf32>) -> tensor<4x1xf32>
  %normed = tg.mul %x, %scale : (tensor<4x8xf32>, tensor<4x1xf32>) -> tensor<4x8xf32>
  %y = tg.mul %normed, %w : (tensor<4x8xf32>, tensor<8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}

// -----

// CHECK-LABEL: func.func @gate
// CHECK:         tg.silu_mul %x, %up : (tensor<4x8xbf16>, tensor<4x8xbf16>) -> tensor<4x8xbf16>
func.func @gate(%x: tensor<4x8xbf16>, %up: tensor<4x8xbf16>) -> tensor<4x8xbf16> {
  %wide = tg.cast %x : (tensor<4x8xbf16>) -> tensor<4x8xf32>
  %s = tg.sigmoid %wide : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %product = tg.mul %s, %wide : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %silu = tg.cast %product : (tensor<4x8xf32>) -> tensor<4x8xbf16>
  %y = tg.mul %up, %silu : (tensor<4x8xbf16>, tensor<4x8xbf16>) -> tensor<4x8xbf16>
  func.return %y : tensor<4x8xbf16>
}

// -----

// CHECK-LABEL: func.func @gelu
// CHECK:         tg.gelu %x {approximate} : (tensor<4x8xf32>) -> tensor<4x8xf32>
// CHECK-NOT:     tg.tanh
func.func @gelu(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %half = tg.constant dense<0.5> : tensor<1xf32>
  %one = tg.constant dense<1.0> : tensor<1xf32>
  %c = tg.constant dense<0.044715> : tensor<1xf32>
  %root = tg.constant dense<0.79788458> : tensor<1xf32>
  %square = tg.mul %x, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %cube = tg.mul %square, %x : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %scaled = tg.mul %c, %cube : (tensor<1xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %inner = tg.add %x, %scaled : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %angle = tg.mul %inner, %root : (tensor<4x8xf32>, tensor<1xf32>) -> tensor<4x8xf32>
  %tanh = tg.tanh %angle : (tensor<4x8xf32>) -> tensor<4x8xf32>
  %sum = tg.add %one, %tanh : (tensor<1xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  %part = tg.mul %x, %half : (tensor<4x8xf32>, tensor<1xf32>) -> tensor<4x8xf32>
  %y = tg.mul %part, %sum : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<4x8xf32>
  func.return %y : tensor<4x8xf32>
}
