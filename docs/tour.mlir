// One decode step of a one-layer Qwen3 model, as `mpk compile --emit tg` imports it before any pass.
builtin.module {
  func.func @step() {
    %history = tg.state @history : tensor<1x64xi32>
    %requests = tg.state @requests : tensor<1x6xi32>
    %rows = tg.state @rows : tensor<8x4xi32>
    %row_count = tg.state @row_count : tensor<1xi32>
    %page_table = tg.state @page_table : tensor<1x4xi32>
    %inv_freq = tg.constant dense<[1.000000e+00, 0.316227764, 1.000000e-01, 0.0316227786, 1.000000e-02, 0.00316227786, 1.000000e-03, 0.000316227786]> : tensor<8xf32>
    %w = tg.param @model.embed_tokens.weight : tensor<256x64xbf16>
    %hidden = tg.embedding %w, %rows : (tensor<256x64xbf16>, tensor<8x4xi32>) -> tensor<8x64xbf16>
    %w_1 = tg.param @model.layers.0.input_layernorm.weight : tensor<64xbf16>
    %normed = tg.rms_norm %hidden, %w_1 {eps = 1.000000e-06 : f64} : (tensor<8x64xbf16>, tensor<64xbf16>) -> tensor<8x64xbf16>
    %w_2 = tg.param @model.layers.0.self_attn.q_proj.weight : tensor<64x64xbf16>
    %q = tg.linear %normed, %w_2 : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
    %q_1 = tg.reshape %q : (tensor<8x64xbf16>) -> tensor<8x4x16xbf16>
    %w_3 = tg.param @model.layers.0.self_attn.k_proj.weight : tensor<32x64xbf16>
    %k = tg.linear %normed, %w_3 : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
    %k_1 = tg.reshape %k : (tensor<8x32xbf16>) -> tensor<8x2x16xbf16>
    %w_4 = tg.param @model.layers.0.self_attn.v_proj.weight : tensor<32x64xbf16>
    %v = tg.linear %normed, %w_4 : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xbf16>
    %v_1 = tg.reshape %v : (tensor<8x32xbf16>) -> tensor<8x2x16xbf16>
    %w_5 = tg.param @model.layers.0.self_attn.q_norm.weight : tensor<16xbf16>
    %normed_1 = tg.rms_norm %q_1, %w_5 {eps = 1.000000e-06 : f64} : (tensor<8x4x16xbf16>, tensor<16xbf16>) -> tensor<8x4x16xbf16>
    %w_6 = tg.param @model.layers.0.self_attn.k_norm.weight : tensor<16xbf16>
    %normed_2 = tg.rms_norm %k_1, %w_6 {eps = 1.000000e-06 : f64} : (tensor<8x2x16xbf16>, tensor<16xbf16>) -> tensor<8x2x16xbf16>
    %rope = tg.rope %normed_1, %rows, %inv_freq : (tensor<8x4x16xbf16>, tensor<8x4xi32>, tensor<8xf32>) -> tensor<8x4x16xbf16>
    %rope_1 = tg.rope %normed_2, %rows, %inv_freq : (tensor<8x2x16xbf16>, tensor<8x4xi32>, tensor<8xf32>) -> tensor<8x2x16xbf16>
    %k_cache = tg.state @k_cache.0 : tensor<4x2x16x16xbf16>
    %k_cache_1 = tg.kv_append %k_cache, %rope_1, %rows, %page_table : (tensor<4x2x16x16xbf16>, tensor<8x2x16xbf16>, tensor<8x4xi32>, tensor<1x4xi32>) -> tensor<4x2x16x16xbf16>
    tg.update @k_cache.0, %k_cache_1 : tensor<4x2x16x16xbf16>
    %v_cache = tg.state @v_cache.0 : tensor<4x2x16x16xbf16>
    %v_cache_1 = tg.kv_append %v_cache, %v_1, %rows, %page_table : (tensor<4x2x16x16xbf16>, tensor<8x2x16xbf16>, tensor<8x4xi32>, tensor<1x4xi32>) -> tensor<4x2x16x16xbf16>
    tg.update @v_cache.0, %v_cache_1 : tensor<4x2x16x16xbf16>
    %attended = tg.attention %rope, %k_cache_1, %v_cache_1, %rows, %requests, %page_table {scale = 2.500000e-01 : f64} : (tensor<8x4x16xbf16>, tensor<4x2x16x16xbf16>, tensor<4x2x16x16xbf16>, tensor<8x4xi32>, tensor<1x6xi32>, tensor<1x4xi32>) -> tensor<8x4x16xbf16>
    %attended_1 = tg.reshape %attended : (tensor<8x4x16xbf16>) -> tensor<8x64xbf16>
    %w_7 = tg.param @model.layers.0.self_attn.o_proj.weight : tensor<64x64xbf16>
    %o = tg.linear %attended_1, %w_7 : (tensor<8x64xbf16>, tensor<64x64xbf16>) -> tensor<8x64xbf16>
    %hidden_1 = tg.add %hidden, %o : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
    %w_8 = tg.param @model.layers.0.post_attention_layernorm.weight : tensor<64xbf16>
    %normed_3 = tg.rms_norm %hidden_1, %w_8 {eps = 1.000000e-06 : f64} : (tensor<8x64xbf16>, tensor<64xbf16>) -> tensor<8x64xbf16>
    %w_9 = tg.param @model.layers.0.mlp.gate_proj.weight : tensor<128x64xbf16>
    %gate = tg.linear %normed_3, %w_9 : (tensor<8x64xbf16>, tensor<128x64xbf16>) -> tensor<8x128xbf16>
    %w_10 = tg.param @model.layers.0.mlp.up_proj.weight : tensor<128x64xbf16>
    %up = tg.linear %normed_3, %w_10 : (tensor<8x64xbf16>, tensor<128x64xbf16>) -> tensor<8x128xbf16>
    %inner = tg.silu_mul %gate, %up : (tensor<8x128xbf16>, tensor<8x128xbf16>) -> tensor<8x128xbf16>
    %w_11 = tg.param @model.layers.0.mlp.down_proj.weight : tensor<64x128xbf16>
    %down = tg.linear %inner, %w_11 : (tensor<8x128xbf16>, tensor<64x128xbf16>) -> tensor<8x64xbf16>
    %hidden_2 = tg.add %hidden_1, %down : (tensor<8x64xbf16>, tensor<8x64xbf16>) -> tensor<8x64xbf16>
    %w_12 = tg.param @model.norm.weight : tensor<64xbf16>
    %normed_4 = tg.rms_norm %hidden_2, %w_12 {eps = 1.000000e-06 : f64} : (tensor<8x64xbf16>, tensor<64xbf16>) -> tensor<8x64xbf16>
    %logits = tg.linear %normed_4, %w : (tensor<8x64xbf16>, tensor<256x64xbf16>) -> tensor<8x256xf32>
    tg.update @logits, %logits : tensor<8x256xf32>
    %sampled = tg.argmax %logits : (tensor<8x256xf32>) -> tensor<8xi32>
    %next_history, %next_requests, %next_rows, %next_row_count = tg.advance %sampled, %history, %requests, %rows, %row_count : (tensor<8xi32>, tensor<1x64xi32>, tensor<1x6xi32>, tensor<8x4xi32>, tensor<1xi32>) -> (tensor<1x64xi32>, tensor<1x6xi32>, tensor<8x4xi32>, tensor<1xi32>)
    tg.update @history, %next_history : tensor<1x64xi32>
    tg.update @requests, %next_requests : tensor<1x6xi32>
    tg.update @rows, %next_rows : tensor<8x4xi32>
    tg.update @row_count, %next_row_count : tensor<1xi32>
    func.return
  }
}
