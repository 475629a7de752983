// RUN: mpk-opt %s -p 'tile{target=h200},sm-poll-data,sm-synthesize-events' | filecheck %s
// RUN: mpk-opt %s -p 'tile{target=h200},sm-synthesize-events' | filecheck %s --check-prefix COUNTED
// RUN: mpk-opt %s -p 'tile{target=h200},sm-poll-data,sm-synthesize-events,sm-fuse-events,sm-schedule,sm-elide-waits,sm-verify' | filecheck %s --check-prefix ELIDED
// RUN: mpk-opt %s -p 'tile{target=sim},sm-poll-data,sm-synthesize-events,sm-fuse-events,sm-schedule,sm-elide-waits,sm-plan-memory,sm-verify' | filecheck %s --check-prefix SHARED

// @a reads the state, half of what it makes is read by @b, what @b makes overwrites the state. The copy's wait for @b is
// for data; its wait for @a only keeps it behind the reading.
func.func @step() {
  %h = tg.state @h : tensor<8x64xbf16>
  %a = tg.param @a : tensor<64x64xbf16>
  %b = tg.param @b : tensor<64x32xbf16>
  %u = tg.linear %h, %a : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
  %v = tg.slice %u {offsets = array<i64: 0, 0>, sizes = array<i64: 8, 32>} : (tensor<8x64xbf16>) -> tensor<8x32xbf16>
  %w = tg.linear %v, %b : (tensor<8x32xbf16>, tensor<64x32xbf16>) -> tensor<8x64xbf16>
  tg.update @h, %w : tensor<8x64xbf16>
  func.return
}

// CHECK:      sm.event @"a->b.polled" polled dense<2> : tensor<1xi32>
// CHECK-NEXT: sm.event @"b->copy" dense<4> : tensor<1xi32>
// CHECK-NEXT: sm.event @"a->copy.reads" after_reads dense<4> : tensor<1xi32>
// CHECK-NEXT: sm.event @step step

// Without polled data a counter orders everything, so no event is special.
// COUNTED:      sm.event @"a->b" dense<2>
// COUNTED-NEXT: sm.event @"b->copy" dense<4>
// COUNTED-NEXT: sm.event @"a->copy" dense<4>

// The two tasks of @a that no one reads have SMs of their own, and nothing but their arrivals tells that they are done.
// ELIDED:      sm.event @"a->b.polled" polled dense<2>
// ELIDED-NEXT: sm.event @"b->copy" dense<4>
// ELIDED-NEXT: sm.event @"a->copy.reads" after_reads dense<4>

// On four SMs each task of @a is followed by one of @b, for which the copy waits. Polled buffers come first in the arena,
// twice.
// SHARED:      sm.graph @step target "sim" arena_bytes 3072 polled_bytes 1024 {
// SHARED:      sm.buffer @a.out <scratch> polled offset 0
// SHARED-NEXT: sm.event @"a->b.polled" polled
// SHARED-NEXT: sm.event @"b->copy" dense<4>
// SHARED-NEXT: sm.event @step step
// SHARED:      sm.buffer @b.out <scratch> offset 2048
