// RUN: mpk-opt %s -p 'tile{target=sim}' | filecheck %s --check-prefix PLAIN
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=push}' | filecheck %s --check-prefix PUSH
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=two-shot},sm-poll-data,sm-synthesize-events' | filecheck %s --check-prefix TWO
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=two-shot},sm-poll-data,sm-synthesize-events,sm-schedule,sm-plan-memory,sm-verify' | filecheck %s --check-prefix SAFE
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=multicast}' | filecheck %s --check-prefix MULTI
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=multicast},sm-poll-data,sm-synthesize-events,sm-schedule,sm-plan-memory,sm-verify' | mpk-opt -p sm-verify | filecheck %s --check-prefix SAFE
// RUN: mpk-opt %s -p 'tile{target=h100},sm-overlap-comm' | filecheck %s --check-prefix AUTO
// RUN: mpk-opt %s -p 'tile{target=h100},sm-overlap-comm{multicast=true}' | filecheck %s --check-prefix MAY
// RUN: not mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=ring}' 2>&1 | filecheck %s --check-prefix WRONG

// A product that is summed over two ranks, and one of the sum, which every rank makes.
func.func @step(%x: tensor<8x64xbf16>) -> tensor<8x64xbf16> attributes {tg.ranks = 2 : i64} {
  %w = tg.param @down {shards = [#tg.shard<dim = 1, parts = 2>]} : tensor<128x64xbf16>
  %p = tg.linear %x, %w : (tensor<8x64xbf16>, tensor<128x64xbf16>) -> tensor<8x128xbf16>
  %s = tg.all_reduce %p {ranks = 2 : i64} : (tensor<8x128xbf16>) -> tensor<8x128xbf16>
  %v = tg.param @next : tensor<64x128xbf16>
  %y = tg.linear %s, %v : (tensor<8x128xbf16>, tensor<64x128xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// The push waits for all of the product, and writes it below that of rank 0.
// PLAIN:      sm.graph @step target "sim" ranks 2 {
// PLAIN:      @down <weight> {{.*}} shards [#tg.shard<dim = 1, parts = 2>]
// PLAIN:      @down.out <scratch> counted
// PLAIN:      sm.grid @all_reduce.push "push" {{.*}} over [2] operands ["x", "y"]
// PLAIN-SAME:   boxes [#sm.box<read, (d0) -> (0, 0), [8, 128]>, #sm.box<write, (d0)[s0] -> ((s0 * 8), (d0 * 64)), [8, 64] to all>]
// PLAIN:      sm.grid @all_reduce "rank_sum" {ranks = 2 : i64, columns = 64 : i64

// The product's tasks write to all ranks themselves.
// PUSH-NOT:   "push"
// PUSH:       sm.grid @down "linear" {{.*}}#sm.box<write, (d0)[s0] -> ((s0 * 8), (d0 * 32)), [8, 32] to all>]
// PUSH:       sm.grid @all_reduce "rank_sum" {{.*}} reason "push asked for: {{.*}} us one-shot, {{.*}} us two-shot"

// As that, each tile by one store.
// MULTI-NOT:  "push"
// MULTI:      sm.grid @down "linear" {{.*}}#sm.box<write, (d0)[s0] -> ((s0 * 8), (d0 * 32)), [8, 32] to multicast>]
// MULTI:      sm.grid @all_reduce "rank_sum" {{.*}} reason "multicast asked for: {{.*}} us one-shot, {{.*}} us two-shot, {{.*}} us multicast"

// Left to itself the pass takes what is cheapest, and multicast only where it may.
// AUTO:       reason "one-shot: {{.*}} us one-shot, {{.*}} us two-shot"
// MAY:        reason "multicast: {{.*}} us one-shot, {{.*}} us two-shot, {{.*}} us multicast"

// Each rank adds 64 of the columns, and sends them to all.
// TWO:        sm.event @"down->all_reduce.polled.shared" polled shared
// TWO:        sm.grid @down "linear" {{.*}}#sm.box<write, (d0)[s0] -> ((s0 * 8), ((d0 * 32) mod 64)), [8, 32] to (d0) -> (((d0 * 32) floordiv 64))>]
// TWO:        sm.grid @all_reduce "rank_sum" {{.*}}, total = 64 : i64
// TWO-SAME:     #sm.box<write, (d0)[s0] -> (0, ((d0 * 64) + (s0 * 64))), [8, 64] to all>]

// SAFE: sm.graph @step target "sim" ranks 2 arena_bytes

// WRONG: sm-overlap-comm: strategy: found 'ring', expected one of auto, push, two-shot, multicast, off
