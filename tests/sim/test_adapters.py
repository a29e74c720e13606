"""LoRA adapters: small worlds worked out by hand, and what a scenario makes of them.

An iteration takes 100 + 1 per prompt token + 10 per decoding sequence, microseconds, prompts first, as in
`test_reference_by_hand.py`. That times and waits agree in worlds nobody worked out is shown with all other rules in
`test_kernel_against_reference.py`. Read next: docs/reference/kernel.md, "Adapters".
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import UNSET as UNSAID
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET, Label, Labels, PromptBlocks
from sageserve.data.profiles.hardware import shape
from sageserve.data.profiles.library import adapting, profile_named
from sageserve.data.results.summary import AdapterCounts, Quantiles
from sageserve.data.scenarios.load import load_scenario
from sageserve.sim.kernel.engine import Kernel
from sageserve.sim.kernel.rows.adapters import Adapters, apart_by_adapter, told_of_adapters
from sageserve.sim.results.meter import told_of_slots
from sageserve.sim.results.summary import summarise
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, row, scenario, trace
from tests.sim.reference import Reference
from tests.sim.test_reference_by_hand import PLAIN, engine, rows

A, B, C = range(3)
World = Kernel | Reference


@pytest.fixture(params=[Kernel, Reference])
def kind(request: pytest.FixtureRequest) -> Callable[..., World]:
    found: Callable[..., World] = request.param
    return found


def play(kind: Callable[..., World], slots: int, asked: tuple[tuple[int, int, int, int], ...]) -> tuple[World, list[int]]:
    """(arrival, prompt, output, adapter) each: 5 more for each adapter, 20 to load one; when each has its last token."""
    setup = replace(PLAIN, profiles=engine(slots=slots, adapter=5, adapter_load=20))
    adapters = Adapters(np.array([adapter for *_, adapter in asked], np.int32))
    world = kind(setup, rows(setup, *(one[:3] for one in asked)), adapters=adapters)
    world.open(0)
    world.run_until(100_000)
    return world, [int(time) for time in world.requests["finish"]]


def loads_of(world: World) -> int:
    """Adapters that were loaded."""
    if isinstance(world, Reference):
        return sum(rank.slots.ever for engine in world._engines for rank in engine.ranks)
    return int(world.adapter_loads.sum())


def test_an_adapter_is_loaded_once_for_those_who_come_together(kind: Callable[..., World]) -> None:
    # 100 + 50 + 50 for both prompts, 5 for the adapter they share, 20 to load it
    world, finish = play(kind, 2, ((1_000, 50, 1, A), (1_000, 50, 1, A)))
    assert (finish, loads_of(world)) == ([1_225, 1_225], 1)


def test_two_adapters_take_twice_as_long_and_the_model_itself_nothing(kind: Callable[..., World]) -> None:
    # 100 + 60 + 2 x (5 + 20)
    _, finish = play(kind, 2, ((0, 20, 1, A), (0, 20, 1, B), (0, 20, 1, UNSET)))
    assert finish == [210] * 3


def test_who_finds_no_slot_is_passed_over_and_comes_first_when_there_is_one(kind: Callable[..., World]) -> None:
    # A and A: 100 + 100 + 25 = 225; the first decodes two more, 115 each, until 455; B then, 100 + 50 + 25
    world, finish = play(kind, 1, ((0, 50, 3, A), (0, 50, 1, B), (0, 50, 1, A)))
    assert finish == [455, 630, 225]
    assert (world.slot_wait.tolist(), loads_of(world)) == ([0, 455, 0], 2)


def test_the_adapter_that_nobody_used_for_longest_makes_way(kind: Callable[..., World]) -> None:
    # A and B are loaded, A is used again, so C takes B's slot, and B, when it comes back, that of C: A came after it
    asked = tuple((1_000 * at, 50, 1, one) for at, one in enumerate((A, B, A, C, A, B)))
    world, finish = play(kind, 2, asked)
    assert loads_of(world) == 4
    assert [time - 1_000 * at - 155 for at, time in enumerate(finish)] == [20, 20, 0, 20, 0, 20]


def test_a_decoding_iteration_takes_more_for_every_adapter_in_it(kind: Callable[..., World]) -> None:
    # both prompts: 100 + 40 + 10 + 40 = 190; then 100 + 20 + 10 for each of two iterations
    _, finish = play(kind, 2, ((0, 20, 3, A), (0, 20, 3, B)))
    assert finish == [190 + 2 * 130] * 2


def test_without_slots_nothing_is_different() -> None:
    asked = rows(PLAIN, (0, 50, 3), (10, 50, 2))
    plain, named = Kernel(PLAIN, asked.copy()), Kernel(PLAIN, asked.copy(), adapters=Adapters(np.array([A, B], np.int32)))
    for world in (plain, named):
        world.open(0)
        world.run_until(10_000)
    assert named.world.record["adapted"] == 0
    assert plain.requests.tobytes() == named.requests.tobytes()


# ---------------------------------------------------------------------------------------------------- a scenario


def settings(adapters: dict[str, object] | None, **engine: object) -> Scenario:
    """One instance of one model."""
    model: dict[str, object] = {"context": 8_000, "engines": {"h100": ENGINE | {"kv_per_token": "160KiB"} | engine}}
    models = {"big": model if adapters is None else model | {"adapters": adapters}}
    return scenario(models=models, fleet={"start": 1, "minimum": 1, "maximum": 1})


SLOTS: dict[str, object] = {"slots": 2, "size": "20MiB", "adapter_us": 50, "any_us": 0}


def played(adapters: dict[str, object] | None, asked: NDArray[np.int32] | None) -> Run:
    """Requests that come together, of these adapters."""
    world = settings(adapters)
    told = trace(world, [row(at, prompt=500, output=20) for at in range(0, 60_000_000, 50_000)])
    labels: dict[Label, Labels] = (
        {} if asked is None else {"adapter": Labels(np.resize(asked, len(told)), ("sql", "legal", "chat"))}
    )
    return simulate(world, replace(told, labels=labels))


def test_slots_take_their_memory_from_the_kv_cache_once() -> None:
    found = settings(SLOTS).models["big"]
    assert found.engines["h100"].kv_tokens == 100_000 - 2 * 20 * 8 * 1024 // 160  # on eight GPUs
    again = Scenario.model_validate_json(settings(SLOTS).model_dump_json(exclude_none=True))
    assert again.models["big"] == found
    assert settings(SLOTS | {"counted": True}).models["big"].engines["h100"].kv_tokens == 100_000


def test_slots_whose_memory_is_taken_are_not_changed_by_the_model_in_silence() -> None:
    kept = settings(SLOTS).model_dump(mode="json", exclude_none=True)
    kept["models"]["big"]["adapters"]["slots"] = 9
    with pytest.raises(ValueError, match="slots of the model is 9, and of this engine, whose slots' memory is taken already, 2"):
        Scenario.model_validate(kept)


def test_a_profile_of_a_file_is_of_the_model_that_it_is_given_to(tmp_path: Path) -> None:
    profile = profile_named("qwen3-32b/h200/tp1").profile.model_dump(mode="json", exclude_none=True)
    (tmp_path / "mine.yaml").write_text(json.dumps({"profiles": {"mine": profile}}), "utf-8")
    scenario = "extends: quickstart\nmodels: {qwen3-32b: {adapters: {slots: 4}, engines: {h200: ./mine.yaml}}}\n"
    (tmp_path / "one.yaml").write_text(scenario, "utf-8")
    told = load_scenario(str(tmp_path / "one.yaml")).models["qwen3-32b"].engines["h200"].adapters
    assert told is not None
    assert told.size == shape("qwen3-32b").adapter_bytes_on(1, 16)


def test_slots_that_decode_alone_are_told_of_and_no_more_compute_than_there_are_adapters() -> None:
    apart = ["models.qwen3-32b.disaggregated={link: 100GB/s, decode: {h200: qwen3-32b/h200/tp1}}"]
    one = load_scenario("quickstart", overrides=[*apart, "models.qwen3-32b.adapters={slots: 4}"])
    one.models["qwen3-32b"].engines["h200"] = profile_named("qwen3-32b/h200/tp2").profile
    counts = AdapterCounts(1, 10, 1, 0.1, 0, Quantiles(None, None, None), None)
    first, second = told_of_slots(SimpleNamespace(scenario=one), {"qwen3-32b": counts})  # type: ignore[arg-type] # no more is read
    assert "1 LoRA adapters, 4 slots an engine" in first
    told = one.models["qwen3-32b"].decode_engines["h200"].adapters
    assert told is not None
    assert f"up to {((told.any_us or 0) + (told.adapter_us or 0)) / 1e3:.3g} ms" in second


@pytest.mark.parametrize(
    ("adapters", "engine", "text"),
    [
        ({"slots": 2}, {}, "nothing known tells size and adapter_us and any_us"),
        (SLOTS, {"kv_per_token": None}, "kv_per_token is not said"),
        (SLOTS | {"size": "9GiB"}, {}, "leave nothing of 100000 KV tokens"),
    ],
)
def test_what_cannot_be_is_said(adapters: dict[str, object], engine: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        settings(adapters, **engine)


def test_what_is_known_of_model_gpu_and_engine_fills_the_rest() -> None:
    one = load_scenario("quickstart", overrides=["models.qwen3-32b.adapters={rank: 8}"]).models["qwen3-32b"].engines["h200"]
    told = one.adapters
    assert told is not None
    assert told.size is not None
    assert (told.slots, told.size) == (1, shape("qwen3-32b").adapter_bytes_on(1, 8))  # vLLM's default
    assert told.adapter_us == pytest.approx(told.size / 4.8e6 / 0.6, rel=1e-3)  # 4.8 TB/s
    assert told.any_us == 35 * 64
    assert told.loading == round(told.size / 25e9 * 1e6)
    other = load_scenario("quickstart", overrides=["models.qwen3-32b.adapters={}", "models.qwen3-32b.engine=sglang 0.5"])
    assert other.models["qwen3-32b"].engines["h200"].adapters is not None
    assert other.models["qwen3-32b"].engines["h200"].adapters.slots == 8
    with pytest.raises(ConfigError, match="slots"):
        load_scenario("quickstart", overrides=["models.qwen3-32b.adapters={}", "models.qwen3-32b.engine=trtllm 1.0"])
    with pytest.raises(ConfigError, match="--adapters"):
        adapting(profile_named("qwen3-32b/h200/tp1"), "{slots: 0}")


def test_an_adapter_has_as_many_parameters_as_peft_says() -> None:
    assert shape("llama-3.1-8b").adapter_bytes_on(1, 16) == 2 * 41_943_040  # q, k, v, o, gate, up, down of 32 layers
    halves = shape("llama-3.1-8b").adapter_bytes_on(2, 16)
    assert 41_943_040 < halves < 2 * 41_943_040  # half of each pair is on both GPUs


def test_the_summary_says_how_many_were_loaded_and_how_long_requests_waited() -> None:
    run = played(SLOTS | {"slots": 1, "load": "2ms"}, np.array([0, 1, 0, 2, UNSET], np.int32))
    found = summarise(run, 1.0)
    assert not isinstance(found.adapters, type(UNSAID))
    one = found.adapters["big"]
    assert one.adapters == 3
    assert one.requests >= 960  # four of five ask for one, and who is preempted is admitted again
    assert 3 <= one.loads <= one.requests
    assert one.load_share == pytest.approx(one.loads / one.requests, abs=1e-6)
    assert one.waited > 100
    assert one.longest_wait_s is not None
    assert one.wait_s.p99 is not None
    assert 0 < one.wait_s.p99 <= one.longest_wait_s
    assert any("3 LoRA adapters, 1 slots an engine" in note for note in found.notes)
    assert any("plans do not know what adapters take" in note for note in found.notes)


def test_who_is_asked_for_all_the_time_keeps_the_only_slot_and_with_a_slot_each_nobody_waits() -> None:
    asked = np.array([0, 1, 0, 2], np.int32)
    few, many = (summarise(played(SLOTS | {"slots": n}, asked), 1.0).adapters for n in (1, 3))
    assert isinstance(few, dict)
    assert isinstance(many, dict)
    assert few["big"].waited > many["big"].waited == 0
    assert (few["big"].longest_wait_s or 0) > 50  # of a minute
    assert many["big"].loads == 3


def test_what_a_trace_or_a_scenario_does_not_have_is_said() -> None:
    assert any(
        "big: requests for LoRA adapters are played as others" in note for note in played(None, np.array([0], np.int32)).notes
    )
    models = {"big": settings(None).models["big"], "other": settings(None).models["big"]}
    rows, codes = np.zeros(2, [("model", "i4")]), Labels(np.array([0, 0], np.int32), ("sql",))
    (note,) = told_of_adapters(codes, rows, models)
    assert note.startswith("big: "), "nobody asks the other one for an adapter"
    unused = summarise(played(SLOTS, None), 1.0)
    assert unused.adapters is UNSAID
    assert any("nobody uses them" in note for note in unused.notes)
    assert not any("adapter" in note for note in played(None, None).notes)


def test_equal_prompts_of_different_adapters_share_no_blocks() -> None:
    world = settings(SLOTS)
    told = trace(world, [row(at, prompt=32) for at in range(4)])
    ends, hashes = np.array([2, 4, 6, 8]), np.array([7, 8] * 4, np.uint64)
    labels: dict[Label, Labels] = {"adapter": Labels(np.array([0, 1, 0, UNSET], np.int32), ("sql", "legal"))}
    told = replace(told, labels=labels, blocks=PromptBlocks(ends, hashes, 16))
    found: Any = apart_by_adapter(told).blocks
    first = found.hashes[::2].tolist()
    assert first[0] == first[2]
    assert first[3] == 7
    assert len(set(first)) == 3
