// RUN: mpk-opt %s | mpk-opt | filecheck %s
// RUN: mpk-opt %s --mlir-print-op-generic | mpk-opt | filecheck %s
// RUN: mpk-opt %s --mlir-print-op-generic | filecheck %s --check-prefix GENERIC
// RUN: mpk-opt %s -t cuda | filecheck %s --check-prefix TEXT

sm.graph @step target "h200" {
  %x = sm.buffer @x <input> : !sm.buffer<[8, 64], bf16>
}
cuda.source @s from @step target "h200" {
  cuda.include "mpk/tasks/rms_norm.cuh"
  cuda.constant @kRingStages 8
  cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
  cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 65536
}

// CHECK:      cuda.source @s from @step target "h200" {
// CHECK-NEXT: cuda.include "mpk/tasks/rms_norm.cuh"
// CHECK-NEXT: cuda.constant @kRingStages 8
// CHECK-NEXT: cuda.body 0 "mpk::RmsNorm<64, 1, 8, false>" in "mpk/tasks/rms_norm.cuh" arguments [1.000000e-06 : f64] streams false
// CHECK-NEXT: cuda.kernel @mpk_step blocks 132 threads 320 shared_bytes 65536
// CHECK-NEXT: }

// GENERIC: "cuda.source"() <{
// GENERIC: "cuda.include"() <{header = "mpk/tasks/rms_norm.cuh"}>
// GENERIC: "cuda.constant"() <{sym_name = "kRingStages", value = 8 : i64}>

// TEXT: case 0: return mpk::run_body<mpk::RmsNorm<64, 1, 8, false>>(context, slot, 1e-06f);
