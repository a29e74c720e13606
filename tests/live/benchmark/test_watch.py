"""Counters under their many names, and what they say of the KV cache."""

import pytest

from sageserve.live.benchmark.watch import parse

VLLM = """# HELP vllm:num_requests_running x
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:generation_tokens_total{engine="0",model_name="m"} 100.0
vllm:cache_config_info{block_size="16",enable_prefix_caching="True",engine="0",num_gpu_blocks="1000"} 1.0
something_else{a="b"} 1.0
"""


def test_vllm_with_two_engines() -> None:
    reading, cache, engines = parse(VLLM, 5)
    assert dict(reading.values) == {"running": 7.0, "waiting": 1.0, "kv_share": 0.5, "output_tokens": 100.0}
    assert (reading.time, cache.kv_tokens, cache.block_size, cache.prefix_caching, engines) == (5, 16_000, 16, True, 2)


def test_newer_vllm_states_tokens_outright() -> None:
    text = 'vllm:cache_config_info{block_size="128",kv_cache_size_tokens="65000",num_gpu_blocks="512"} 1.0\n'
    assert parse(text, 0)[1].kv_tokens == 65_000


@pytest.mark.parametrize("name", ["sglang:num_running_reqs", "llamacpp:requests_processing"])
def test_other_engines_have_other_names(name: str) -> None:
    assert parse(f"{name} 2\n", 0)[0].get("running") == 2.0


def test_a_page_that_is_none_has_no_numbers() -> None:
    assert not parse("<html>hello</html>", 0)[0].values
