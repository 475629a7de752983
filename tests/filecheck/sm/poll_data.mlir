// RUN: mpk-opt %s -p 'tile{target=sim},sm-poll-data' | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=sim},sm-poll-data,sm-poll-data' | filecheck %s

// Products write and read polled words. What an elementwise task reads or writes is not polled, nor is what the host
// reads.
func.func @step(%x: tensor<8x64xbf16>) -> tensor<8x32xbf16> {
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<64x64xbf16>
  %c = tg.param @c : tensor<32x64xbf16>
  %h = tg.linear %x, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %i = tg.linear %h, %b : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %n = tg.neg %i : (tensor<8x64xbf16>) -> tensor<8x64xbf16>
  %y = tg.linear %n, %c : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
  func.return %y : tensor<8x32xbf16>
}

// CHECK: sm.buffer @x <input> : !sm.buffer
// CHECK: sm.buffer @result0 <output> : !sm.buffer
// CHECK: sm.buffer @a.out <scratch> polled : !sm.buffer
// CHECK: sm.buffer @b.out <scratch> : !sm.buffer
// CHECK: sm.buffer @neg.out <scratch> : !sm.buffer
