// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=push},sm-panel-rows' | filecheck %s --check-prefix PUSH
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=two-shot},sm-panel-rows' | filecheck %s --check-prefix TWO
// RUN: mpk-opt %s -p 'tile{target=sim},sm-overlap-comm{strategy=push},sm-panel-rows,sm-poll-data,sm-synthesize-events,sm-schedule,sm-plan-memory,sm-verify' | filecheck %s --check-prefix SAFE

// What other ranks write lies row by row: where each rank adds all, only the parts; where each adds some of the columns
// and sends them to all, the sums too.
func.func @pushed(%x: tensor<8x64xbf16>) -> tensor<8x64xbf16> attributes {tg.ranks = 2 : i64} {
  %w = tg.param @down {shards = [#tg.shard<dim = 1, parts = 2>]} : tensor<128x64xbf16>
  %p = tg.linear %x, %w : (tensor<8x64xbf16>, tensor<128x64xbf16>) -> tensor<8x128xbf16>
  %s = tg.all_reduce %p {ranks = 2 : i64} : (tensor<8x128xbf16>) -> tensor<8x128xbf16>
  %v = tg.param @next : tensor<64x128xbf16>
  %y = tg.linear %s, %v : (tensor<8x128xbf16>, tensor<64x128xbf16>) -> tensor<8x64xbf16>
  func.return %y : tensor<8x64xbf16>
}

// PUSH: sm.buffer @all_reduce.slots <scratch> : !sm.buffer
// PUSH: sm.buffer @all_reduce.out <scratch> layout <row_panels_8> : !sm.buffer
// PUSH: sm.grid @all_reduce "rank_sum" {{.*}}y_panel = 8 : i64}

// TWO:  sm.buffer @all_reduce.slots <scratch> : !sm.buffer
// TWO:  sm.buffer @all_reduce.out <scratch> : !sm.buffer
// TWO:  sm.grid @all_reduce "rank_sum" {{.*}}y_panel = 1 : i64}

// SAFE: sm.buffer @all_reduce.out <scratch> layout <row_panels_8> polled
