"""Metrics pages as engines write them: their names, labels and shapes, with made-up numbers."""

VLLM = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta/Llama"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta/Llama"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="meta/Llama"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",gpu_memory_utilization="0.9",num_gpu_blocks="1000"} 1.0
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="meta/Llama"} 5000.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="meta/Llama"} 1.7e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="meta/Llama"} 700.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="meta/Llama"} 8.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="meta/Llama"} 2.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1",model_name="meta/Llama"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1.0",model_name="meta/Llama"} 9.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="meta/Llama"} 10.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="meta/Llama"} 10.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="meta/Llama"} 4.5
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 12745.0
"""

VLLM_TWO_RANKS = """vllm:num_requests_running{engine="0",model_name="m"} 3
vllm:num_requests_running{engine="1",model_name="m"} 5
vllm:num_requests_waiting{engine="0",model_name="m"} 0
vllm:num_requests_waiting{engine="1",model_name="m"} 2
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.6
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="1000"} 1
"""

SGLANG = """# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 2.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.0
# TYPE sglang:token_usage gauge
sglang:token_usage{engine_type="unified",model_name="m",pp_rank="0",tp_rank="0"} 0.28
# TYPE sglang:max_total_num_tokens gauge
sglang:max_total_num_tokens{model_name="m"} 420000.0
# TYPE sglang:prompt_tokens_total counter
sglang:prompt_tokens_total{is_streaming="True",model_name="m"} 100.0
sglang:prompt_tokens_total{is_streaming="False",model_name="m"} 20.0
# TYPE sglang:inter_token_latency_seconds histogram
sglang:inter_token_latency_seconds_sum{model_name="m"} 3.0
sglang:inter_token_latency_seconds_bucket{le="0.01",model_name="m"} 10.0
sglang:inter_token_latency_seconds_bucket{le="+Inf",model_name="m"} 100.0
sglang:inter_token_latency_seconds_count{model_name="m"} 100.0
"""

LLAMA_CPP = """# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 143
# HELP llamacpp:tokens_predicted_total Number of generation tokens processed.
# TYPE llamacpp:tokens_predicted_total counter
llamacpp:tokens_predicted_total 673
# TYPE llamacpp:n_busy_slots_per_decode counter
llamacpp:n_busy_slots_per_decode -nan
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 4
"""

TGI = """# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 6
# TYPE tgi_queue_size gauge
tgi_queue_size 2
# TYPE tgi_batch_current_max_tokens gauge
tgi_batch_current_max_tokens 3000
# TYPE tgi_batch_max_total_tokens gauge
tgi_batch_max_total_tokens 12000
# TYPE tgi_request_input_length histogram
tgi_request_input_length_bucket{le="64"} 5
tgi_request_input_length_bucket{le="+Inf"} 9
tgi_request_input_length_sum 900
tgi_request_input_length_count 9
# TYPE tgi_request_success counter
tgi_request_success{method="batch"} 9
"""

TGI_FRESH = """# TYPE tgi_tokenize_request_count counter
tgi_tokenize_request_count 0
"""
