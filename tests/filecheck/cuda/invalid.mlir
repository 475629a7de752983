// RUN: mpk-opt %s --split-input-file --verify-diagnostics

// expected-error@+1 {{cuda.source @s: expected one kernel, found 0}}
cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
}

// -----

// expected-error@+1 {{cuda.source: expected bodies numbered 0 to 0, found [1]}}
cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 1 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 65536
}

// -----

// expected-error@+1 {{header 'mpk/tasks/rms_norm.cuh' is not included}}
cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rope.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 65536
}

// -----

// expected-error@+1 {{unknown target 'h2000'}}
cuda.source @s from @step target "h2000" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 65536
}

// -----

// expected-error@+1 {{cuda.kernel @mpk_step: expected at most 232448 bytes of shared memory on h200, found 232449}}
cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 232449
}

// -----

cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  // expected-error@+1 {{expected whole warps of 32, at most 1024 threads, found 48}}
  cuda.kernel @mpk_step blocks 132 threads 48 shared_bytes 65536
}

// -----

cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  // expected-error@+1 {{expected whole warps of 32, at most 1024 threads, found 1056}}
  cuda.kernel @mpk_step blocks 132 threads 1056 shared_bytes 65536
}

// -----

cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  // expected-error@+1 {{cuda.kernel @mpk_step: expected at least one block}}
  cuda.kernel @mpk_step blocks 0 threads 320 shared_bytes 65536
}
