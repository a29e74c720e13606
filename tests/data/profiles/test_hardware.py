"""Shapes of models give the counts their cards publish; facts of GPUs are complete.

Read next: `src/sageserve/data/profiles/hardware.py`.
"""

import pytest

from sageserve.base.errors import ConfigError
from sageserve.data.profiles.hardware import gpu_named, gpu_names, model_names, shape


@pytest.mark.parametrize("name", model_names())
def test_parameters_from_the_shape_are_those_of_the_model_card(name: str) -> None:
    one = shape(name)
    assert one.parameters / 1e9 == pytest.approx(one.published, rel=0.02)
    if one.active is not None:  # cards round, and differ in whether the output layer counts
        used = (one.active_parameters, one.active_parameters - one.output)
        assert any(each / 1e9 == pytest.approx(one.active, rel=0.1) for each in used)
    assert one.source.startswith("https://huggingface.co/")


@pytest.mark.parametrize(
    ("name", "kib"),
    [
        ("llama-2-70b", 320),
        ("llama-2-7b", 512),
        ("llama-3.1-8b", 128),
        ("llama-3.1-405b", 504),
        ("bloom-176b", 3920),
        ("qwen3-235b-a22b", 188),
        ("deepseek-v3", 68.625),  # 61 layers of 512 + 64 numbers of 2 bytes
        ("qwen3.5-397b-a17b", 30),  # 15 of 60 layers attend: 2 heads of 256, keys and values
    ],
)
def test_kv_bytes_per_token_are_the_known_ones(name: str, kib: float) -> None:
    assert shape(name).kv_bytes == kib * 1024


def test_a_window_bounds_what_its_layers_keep() -> None:
    one = shape("gpt-oss-120b")
    full = 2 * one.layers * one.kv_heads * one.head * 2
    assert full / 2 < one.kv_bytes < 0.52 * full, "18 of 36 layers keep 128 of 4,096 tokens"


def test_layers_with_a_state_keep_it_however_long_the_context_is() -> None:
    one = shape("qwen3.5-397b-a17b")
    assert one.state_bytes == 45 * 64 * 128 * 128 * 4, "45 layers, 64 heads, 32 bits"
    assert shape("qwen3.5-397b-a17b-nvfp4").state_bytes == one.state_bytes
    assert shape("qwen3-235b-a22b").state_bytes == 0
    everywhere = one.model_copy(update={"recurrent": None})
    assert one.attention_flops == everywhere.attention_flops / 4


def test_heads_are_split_over_gpus_and_copied_when_there_are_too_few() -> None:
    assert shape("llama-3.1-70b").kv_bytes_on(8) * 8 == shape("llama-3.1-70b").kv_bytes
    assert shape("qwen3-235b-a22b").kv_bytes_on(8) * 8 == 2 * shape("qwen3-235b-a22b").kv_bytes, "4 heads on 8 GPUs"
    assert shape("deepseek-v3").kv_bytes_on(8) == shape("deepseek-v3").kv_bytes, "a latent vector is on every GPU"


def test_low_precision_takes_the_memory_its_checkpoint_takes() -> None:
    assert shape("llama-3.1-405b-fp8").weight_bytes < 0.51 * shape("llama-3.1-405b").weight_bytes
    assert shape("gpt-oss-120b").weight_bytes / 1e9 == pytest.approx(65.2, rel=0.02)  # published: fits one 80 GB GPU
    assert shape("deepseek-v3").weight_bytes / 1e9 == pytest.approx(673, rel=0.02)


def test_a_suffix_asks_for_a_model_in_another_format() -> None:
    plain = shape("llama-3.1-70b")
    for suffix, size in (("fp8", 1.0), ("int4", 4.5 / 8), ("nvfp4", 4.5 / 8)):
        one = shape(f"llama-3.1-70b-{suffix}")
        assert one.parameters == plain.parameters
        assert one.always_bytes == plain.always * size + plain.output * 2, "the output layer stays in bf16"
    mixture = shape("deepseek-v3-nvfp4")
    assert mixture.always_weights == "bf16"
    assert mixture.routed_bytes == mixture.routed * 4.5 / 8
    assert [shape(one).cache for one in ("deepseek-v3-nvfp4", "llama-3.1-70b-nvfp4", "deepseek-v3")] == ["fp8", "bf16", "bf16"]
    small = shape("llama-3.1-70b-fp8-kvfp8")
    assert (small.weights, small.kv_bytes) == ("fp8", plain.kv_bytes / 2)
    for nonsense in (
        "deepseek-v3-nvfp4-kvfp8",
        "llama-3.1-70b-kvfp8-kvfp8",
        "llama-3.1-70b-kvfp4",
        "llama-3.1-405b-fp8-fp8",
        "deepseek-v3-fp8",
        "llama-3.1-70b-bf16",
        "llama-3-fp8",
    ):
        with pytest.raises(ConfigError, match="no model shape is called"):
            shape(nonsense)


def test_a_larger_batch_touches_more_experts_and_never_more_than_there_are() -> None:
    one = shape("mixtral-8x7b")
    shares = [one.touched(n) for n in (1, 2, 8, 64, 512)]
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(2 / 8)
    assert shares[-1] <= 1


def test_an_unknown_name_is_refused_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match="did you mean 'qwen3-32b'"):
        shape("qwen3-32")
    with pytest.raises(ConfigError, match="did you mean 'h100-80gb'"):
        gpu_named("h100-80g")


@pytest.mark.parametrize("name", gpu_names())
def test_gpus_say_where_their_rates_come_from(name: str) -> None:
    gpu = gpu_named(name)
    assert gpu.source
    assert 50 < gpu.bf16 < 3000
    assert 0.25 < gpu.bandwidth < 10
    assert gpu.peak("fp8") == 1e12 * (gpu.fp8 or gpu.bf16)
    assert gpu.peak("mxfp4") == gpu.peak("nvfp4") == 1e12 * (gpu.fp4 or gpu.bf16)
    assert gpu.peak("int4") == gpu.peak("bf16")
