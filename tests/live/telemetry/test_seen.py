"""Four engines are read alike; idle is not blind; old and new names are never added up."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import ProfileSettings
from sageserve.core.engine.timing import row_of
from sageserve.data.history.names import ALIASES, NEEDED, EngineKind, EngineSignal, aliases_of, front_table, table
from sageserve.live.emulator.batch import Sequence
from sageserve.live.emulator.metrics import EngineMetrics
from sageserve.live.emulator.ranks import EngineRanks
from sageserve.live.telemetry.seen import Blind, BlindReason, EngineSeen, HistogramSeen, read_seen
from tests.live.telemetry.pages import LLAMA_CPP, SGLANG, TGI, TGI_FRESH, VLLM, VLLM_TWO_RANKS


def seen(text: str, model: str = "", *, histograms: bool = False) -> EngineSeen:
    found = read_seen(text, model, histograms=histograms)
    assert isinstance(found, EngineSeen), found
    return found


def why(text: str, model: str = "") -> BlindReason:
    found = read_seen(text, model)
    assert isinstance(found, Blind)
    assert found.detail
    return found.why


@pytest.mark.parametrize(
    ("page", "engine", "in_flight", "use", "tokens", "prompt"),
    [
        (VLLM, EngineKind.VLLM, 4, 0.25, 16_000, 5000),
        (SGLANG, EngineKind.SGLANG, 2, 0.28, 420_000, 120),
        (LLAMA_CPP, EngineKind.LLAMA_CPP, 5, None, None, 143),
        (TGI, EngineKind.TGI, 8, 0.25, None, 900),
    ],
)
def test_each_engine_is_read(
    page: str, engine: EngineKind, in_flight: float, use: float | None, tokens: int | None, prompt: float
) -> None:
    one = seen(page)
    assert (one.engine, one.in_flight, one.kv_use, one.kv_tokens) == (engine, in_flight, use, tokens)
    assert one.counters[EngineSignal.PROMPT_TOKENS] == prompt
    assert not one.idle
    assert {alias.signal for alias in one.matched} >= {EngineSignal.RUNNING, EngineSignal.WAITING, EngineSignal.PROMPT_TOKENS}


def test_histograms_are_read_when_asked_for() -> None:
    assert not seen(VLLM).histograms
    ttft = seen(VLLM, histograms=True).histograms[EngineSignal.TTFT]
    assert ttft == HistogramSeen(10, 4.5, ((0.1, 4), (1.0, 9), (math.inf, 10)))
    assert ttft.mean == 0.45
    assert seen(SGLANG, histograms=True).histograms[EngineSignal.ITL].mean == 0.03
    assert seen(TGI, histograms=True).histograms[EngineSignal.PROMPT_SIZE].count == 9


# --- rules that others learnt the hard way ---


def test_rule_1_what_is_asked_of_a_saturated_engine_is_not_what_it_completes() -> None:
    later = VLLM.replace('num_requests_waiting{engine="0",model_name="meta/Llama"} 1.0', "num_requests_waiting 500")
    before, after = seen(VLLM), seen(later)
    assert before.counters[EngineSignal.SUCCESS] == after.counters[EngineSignal.SUCCESS]  # a rate of completions sees no demand
    assert after.in_flight - before.in_flight == 499


def test_rule_2_an_old_name_is_found_when_the_new_one_is_not_there() -> None:
    old = seen(VLLM.replace("kv_cache_usage_perc", "gpu_cache_usage_perc"))
    assert old.kv_use == 0.25
    (alias,) = [one for one in old.matched if one.signal is EngineSignal.KV_USE]
    assert (alias.metric, alias.until) == ("vllm:gpu_cache_usage_perc", "0.12")


def test_rule_3_of_two_names_one_is_taken() -> None:
    both = VLLM + 'vllm:gpu_cache_usage_perc{engine="0",model_name="meta/Llama"} 0.5\n'
    assert seen(both).kv_use == 0.25
    histograms = "".join(
        f'vllm:{name}_count{{model_name="meta/Llama"}} 7\nvllm:{name}_sum{{model_name="meta/Llama"}} 1\n'
        for name in ("time_per_output_token_seconds", "inter_token_latency_seconds")
    )
    assert seen(VLLM + histograms, histograms=True).histograms[EngineSignal.ITL].count == 7


def test_rule_4_counters_have_their_suffix() -> None:
    for alias in ALIASES:
        if alias.kind == "counter" and alias.engine is not EngineKind.TGI:  # TGI's are not written by a Prometheus client
            assert alias.metric.endswith("_total"), alias
    without = VLLM.replace("vllm:prompt_tokens_total", "vllm:prompt_tokens")
    assert EngineSignal.PROMPT_TOKENS not in seen(without).counters


def test_rule_5_idle_is_seen_and_blind_is_not() -> None:
    idle = VLLM.replace(" 3.0", " 0.0").replace('meta/Llama"} 1.0', 'meta/Llama"} 0.0').replace(" 0.25", " NaN")
    one = seen(idle)
    assert one.idle
    assert one.kv_use == 0.0
    busy = seen(VLLM.replace(" 0.25", " NaN"))
    assert busy.kv_use is None  # something runs, so this is not 0 by 0
    assert seen(VLLM.replace(" 10.0", " 0.0").replace(" 4.5", " NaN"), histograms=True).histograms[EngineSignal.TTFT].mean is None
    assert seen(TGI_FRESH).idle  # it shows its gauges after the first request only
    assert why("") is BlindReason.NO_SERIES
    assert why("python_gc_objects_collected_total 3\n") is BlindReason.NO_SERIES
    assert why(VLLM.replace("vllm:num_requests_waiting", "vllm:something_else")) is BlindReason.NO_SERIES
    assert why(VLLM.replace(" 3.0", " NaN")) is BlindReason.NOT_A_NUMBER
    assert why("vllm:num_requests_running{oops 3\n") is BlindReason.NOT_A_PAGE


def test_rule_6_names_of_models_differ_in_case_and_metrics_wear_prefixes() -> None:
    assert seen(VLLM, "META/llama").running == 3
    assert why(VLLM, "other") is BlindReason.OTHER_MODEL
    assert seen(LLAMA_CPP, "whatever").running == 1  # it names no model
    for wrapped in (VLLM.replace("vllm:", "ray_vllm_"), VLLM.replace("vllm:", "kserve_vllm:"), VLLM.replace("vllm:", "vllm_")):
        assert seen(wrapped).kv_tokens == 16_000
    two = VLLM + 'vllm:num_requests_running{engine="0",model_name="other"} 100\n'
    assert seen(two, "meta/Llama").running == 3


def test_rule_7_ranks_of_one_instance_are_added_and_counted_once() -> None:
    one = seen(VLLM_TWO_RANKS)
    assert (one.running, one.waiting, one.kv_tokens, one.ranks) == (8, 2, 32_000, 2)
    assert one.kv_use == pytest.approx(0.4)


# --- the table ---


def test_every_engine_has_what_is_needed_and_no_name_twice() -> None:
    for engine in EngineKind:
        for signal in NEEDED:
            assert aliases_of(engine, signal)
    names = [(alias.metric, alias.signal) for alias in ALIASES]
    assert len(names) == len(set(names))
    for alias in ALIASES:
        newer = aliases_of(alias.engine, alias.signal)
        assert newer[0].until == "" or len(newer) == 1  # the first one looked for is the current one


def test_the_reference_page_shows_the_table(repo_root: Path) -> None:
    page = (repo_root / "docs/reference/engine-metrics.md").read_text("utf-8")
    assert table() in page
    assert front_table() in page


# --- the emulated engine speaks vLLM's language ---


SMALL = ProfileSettings(
    gpu="x",
    tp=1,
    gpus=1,
    iteration_ms=((1, 0.01), (2, 0.011)),
    decode_us_per_sequence=0,
    kv_ns_per_token=0,
    attention_ns_per_token2=0,
    kv_tokens=100,
    max_sequences=4,
    max_batched_tokens=4096,
    source="made up",
)


class Silent:
    def made(self, now: int, decoded: list[Sequence], prompts: list[Sequence]) -> None:
        pass


lists = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 50), st.floats(0, 100)), max_size=20)


@given(finished=lists, running=st.integers(0, 4), waiting=st.integers(0, 3), kv_tokens=st.integers(100, 10**6))
def test_what_the_emulated_engine_says_is_what_is_seen(
    finished: list[tuple[int, int, float]], running: int, waiting: int, kv_tokens: int
) -> None:
    batch = EngineRanks(row_of(SMALL.model_copy(update={"kv_tokens": kv_tokens})), Silent())
    meters = EngineMetrics("model", batch, speed=1)
    for number in range(running):
        batch.submit(Sequence(number, prompt=1, output=100, arrival=0))
    batch.advance(0)  # these run; what comes now waits until their iteration ends
    for number in range(running, running + waiting):
        batch.submit(Sequence(number, prompt=1, output=100, arrival=1))
    for prompt, output, ttft in finished:
        one = Sequence(99, prompt=prompt, output=output, arrival=0)
        one.admitted = one.first = int(ttft * 1e6)
        meters.first(one, one.first)
        meters.finished(one, one.first + output, "stop")
    one_seen = seen(meters.text().decode(), "MODEL", histograms=True)
    assert (one_seen.running, one_seen.waiting) == (running, waiting)
    assert one_seen.kv_tokens == kv_tokens
    assert one_seen.kv_use == pytest.approx(batch.used / kv_tokens)
    assert one_seen.counters[EngineSignal.PROMPT_TOKENS] == sum(prompt for prompt, _, _ in finished)
    assert one_seen.counters[EngineSignal.SUCCESS] == len(finished)
    assert one_seen.histograms[EngineSignal.TTFT].count == len(finished)
    assert one_seen.histograms[EngineSignal.TTFT].total == pytest.approx(sum(int(t * 1e6) / 1e6 for _, _, t in finished))
