// RUN: mpk-opt %s -p sm-synthesize-events,sm-schedule,sm-pipeline,sm-plan-memory,lower-to-cuda | filecheck %s
// RUN: mpk-opt %s -p sm-synthesize-events,sm-schedule,sm-pipeline,sm-plan-memory,lower-to-cuda -t cuda | filecheck %s --check-prefix TEXT
// RUN: mpk-opt %s -p 'sm-synthesize-events,sm-pipeline{ring_kib=64},lower-to-cuda{profile=true jitter_ns=500}' | filecheck %s --check-prefix OPTIONS
// RUN: not mpk-opt %s -p sm-pipeline,lower-to-cuda 2>&1 | filecheck %s --check-prefix EARLY
// RUN: not mpk-opt %s -p sm-synthesize-events,lower-to-cuda 2>&1 | filecheck %s --check-prefix UNSPLIT

// Two bodies: @a and @c share one. The tables are still expanded from the graph beside it.
sm.graph @step target "sim" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 32], bf16>
  %y = sm.buffer @y <scratch> : !sm.buffer<[8, 32], bf16>
  %z = sm.buffer @z <scratch> : !sm.buffer<[8, 32], bf16>
  %out = sm.buffer @out <output> : !sm.buffer<[8, 32], bf16>
  sm.grid @a "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%x, %y : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @b "elementwise" {function = "neg", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%y, %z : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
  sm.grid @c "elementwise" {function = "silu", columns = 16 : i64, rows = 8 : i64, total = 32 : i64}
    over [2] operands ["a", "y"](%z, %out : !sm.buffer<[8, 32], bf16>, !sm.buffer<[8, 32], bf16>)
    boxes [#sm.box<read, (d0) -> (0, d0 * 16), [8, 16]>, #sm.box<write, (d0) -> (0, d0 * 16), [8, 16]>]
}

// CHECK:      cuda.source @step.cuda from @step target "sim" {
// CHECK-NEXT:   cuda.include "mpk/tasks/elementwise.cuh"
// CHECK-NEXT:   cuda.constant @kRingStages 13
// CHECK-NEXT:   cuda.constant @kStagesInFlight 3
// CHECK-NEXT:   cuda.constant @kMostStagesInFlight 5
// CHECK-NEXT:   cuda.constant @kStageBytes 16384
// CHECK-NEXT:   cuda.constant @kScratchBytes 0
// CHECK-NEXT:   cuda.constant @kBlockThreads 384
// CHECK-NEXT:   cuda.constant @kRuntimeSharedBytes 3584
// CHECK-NEXT:   cuda.constant @kPolledBytes 0
// CHECK-NEXT:   cuda.constant @kStepEvent 4
// CHECK-NEXT:   cuda.constant @kStepArrivals 4
// CHECK-NEXT:   cuda.constant @kRanks 1
// CHECK-NEXT:   cuda.constant @kRankBlocks 4
// CHECK-NEXT:   cuda.constant @kMulticasts 0
// CHECK-NEXT:   cuda.constant @kStepCounterOffset 1024
// CHECK-NEXT:   cuda.constant @kNumTasks 6
// CHECK-NEXT:   cuda.constant @kBulkLoads 1
// CHECK-NEXT:   cuda.constant @kEarlyWeights 1
// CHECK-NEXT:   cuda.constant @kProfile 0
// CHECK-NEXT:   cuda.constant @kJitterNs 0
// CHECK-NEXT:   cuda.body 0 "mpk::Elementwise<mpk::functor::Silu, 16, 8, 32>" in "mpk/tasks/elementwise.cuh" arguments [] streams false
// CHECK-NEXT:   cuda.body 1 "mpk::Elementwise<mpk::functor::Neg, 16, 8, 32>" in "mpk/tasks/elementwise.cuh" arguments [] streams false
// CHECK-NEXT:   cuda.kernel @mpk_step blocks 4 threads 384 shared_bytes 216576
// CHECK-NEXT: }

// TEXT:      constexpr int kRingStages = 13;
// TEXT:      #include "mpk/runtime/kernel.cuh"
// TEXT-NEXT: #include "mpk/tasks/elementwise.cuh"
// TEXT:      switch (body) {
// TEXT-NEXT:   case 0: return mpk::run_body<mpk::Elementwise<mpk::functor::Silu, 16, 8, 32>>(context, slot);
// TEXT-NEXT:   case 1: return mpk::run_body<mpk::Elementwise<mpk::functor::Neg, 16, 8, 32>>(context, slot);
// TEXT-NEXT: }
// TEXT:      return true;
// TEXT:      extern "C" __global__ void __launch_bounds__(384, 1)
// TEXT-NEXT:     mpk_step(const __grid_constant__ mpk::Launches launches) {

// OPTIONS: cuda.constant @kRingStages 4
// OPTIONS: cuda.constant @kProfile 1
// OPTIONS: cuda.constant @kJitterNs 500

// EARLY: lower-to-cuda: the graph has no step event
// UNSPLIT: lower-to-cuda: the graph does not say how blocks split shared memory
