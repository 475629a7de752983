// RUN: mpk-opt %s -p cse | filecheck %s --check-prefix CSE
// RUN: mpk-opt %s -p dce | filecheck %s --check-prefix DCE
// RUN: mpk-opt %s -p canonicalize | filecheck %s --check-prefix DCE

// A state is what it was when the step began, before and after an update: both reads are one value.
// CSE-LABEL: func.func @state
// CSE-NEXT: %before = tg.state @counter : tensor<4xf32>
// CSE-NEXT: %next = tg.neg %before
// CSE-NEXT: tg.update @counter, %next
// CSE-NEXT: tg.update @copy, %before
// An update nobody reads stays; an unused value goes.
// DCE-LABEL: func.func @state
// DCE-NOT: tg.exp
// DCE: tg.update @counter
// DCE: tg.update @copy
func.func @state() {
  %before = tg.state @counter : tensor<4xf32>
  %next = tg.neg %before : (tensor<4xf32>) -> tensor<4xf32>
  %unused = tg.exp %before : (tensor<4xf32>) -> tensor<4xf32>
  tg.update @counter, %next : tensor<4xf32>
  %after = tg.state @counter : tensor<4xf32>
  tg.update @copy, %after : tensor<4xf32>
  func.return
}

// Params of one name are one value; the same name interleaved is another.
// CSE-LABEL: func.func @params
// CSE-NEXT: %a = tg.param @w {sources = ["gate", "up"]} : tensor<32x16xf32>
// CSE-NEXT: %c = tg.param @w {sources = ["gate", "up"], interleave = 8 : i64} : tensor<32x16xf32>
// CSE-NEXT: func.return %a, %a, %c
func.func @params() -> (tensor<32x16xf32>, tensor<32x16xf32>, tensor<32x16xf32>) {
  %a = tg.param @w {sources = ["gate", "up"]} : tensor<32x16xf32>
  %b = tg.param @w {sources = ["gate", "up"]} : tensor<32x16xf32>
  %c = tg.param @w {sources = ["gate", "up"], interleave = 8 : i64} : tensor<32x16xf32>
  func.return %a, %b, %c : tensor<32x16xf32>, tensor<32x16xf32>, tensor<32x16xf32>
}
