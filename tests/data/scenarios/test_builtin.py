"""The scenarios and profiles that ship: they load, keep their promises, and fit the exported JSON Schema."""

import re

import pytest
from pydantic import BaseModel, JsonValue

from sageserve.base import config
from sageserve.base.config import ProfileSettings, Scenario
from sageserve.base.units import DAY
from sageserve.core.engine.timing import first_time, iteration_time, row_of
from sageserve.data.documents import BUILTIN, read_file
from sageserve.data.profiles.library import profile_entries
from sageserve.data.scenarios.layers import builtin_names
from sageserve.data.scenarios.load import catalogue, load, load_scenario, resolved_yaml
from sageserve.data.scenarios.schema import scenario_schema
from sageserve.data.yaml_positions import Value

COMPLETE = ("kubernetes-day", "o365-paper-peak", "o365-paper-week", "o365-peak", "o365-week", "quickstart")
WHOLE = (*COMPLETE, "fleet-o365")


@pytest.mark.parametrize("name", WHOLE)
def test_built_in_scenarios_load_and_their_dump_loads_back(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    scenario = load_scenario(name)
    text = resolved_yaml(scenario)
    path = tmp_path_factory.mktemp("dump") / f"{name}.yaml"
    path.write_text(text)
    assert load_scenario(path) == scenario
    assert resolved_yaml(load_scenario(name)) == text


def test_the_catalogue_lists_all_and_tells_parts_from_scenarios() -> None:
    entries = {name: whole for name, _, whole in catalogue()}
    assert set(entries) == set(builtin_names()) >= {*WHOLE, "traffic-o365"}
    assert {name for name, whole in entries.items() if whole and name in WHOLE} == set(COMPLETE)
    assert all(about for name, about, _ in catalogue() if name in WHOLE)


def test_the_fleet_is_the_papers() -> None:
    fleet = load_scenario("fleet-o365")
    assert list(fleet.models) == ["llama-2-70b", "bloom-176b", "llama-3.1-8b", "llama-3.2-3b"]
    assert list(fleet.regions) == ["eastus", "centralus", "westus"]
    assert len(fleet.models) * len(fleet.regions) * fleet.fleet.start == 240
    assert (fleet.tiers["iw-f"].ttft, fleet.tiers["iw-n"].ttft, fleet.tiers["niw"].deadline) == (10**6, 6 * 10**7, DAY)
    assert fleet.regions["westus"].gpus["h100-80gb"].price.on_demand == 98.32
    assert [fleet.rtt("eastus", other) for other in fleet.regions] == [5_000, 32_000, 70_000]


def test_the_papers_scenarios_turn_nobody_away_and_the_others_do() -> None:
    assert {name: load_scenario(name).admission.act for name in WHOLE} == {name: not name.startswith("o365") for name in WHOLE}


def test_the_week_and_the_peak_are_ten_million_requests() -> None:
    week, peak = (load_scenario(name).workload.generate for name in ("o365-week", "o365-peak"))
    assert (week.requests, week.length, week.history) == (10_000_000, 7 * DAY, 0)
    assert (peak.requests, peak.length, peak.begins, peak.history) == (10_000_000, DAY, 2 * DAY, 14 * DAY)


@pytest.mark.parametrize("part", ["peak", "week"])
def test_the_papers_scenarios_differ_from_the_others_in_one_promise_alone(part: str) -> None:
    paper, ours = (load_scenario(name).model_dump() for name in (f"o365-paper-{part}", f"o365-{part}"))
    assert paper["tiers"]["iw-f"].pop("ttft_per_1k_tokens") is None
    assert ours["tiers"]["iw-f"].pop("ttft_per_1k_tokens") == "250ms"
    assert {key: value for key, value in paper.items() if ours[key] != value}.keys() == {"name", "about"}


def test_idle_engines_keep_the_promise_that_grows_for_prompts_of_all_lengths() -> None:
    scenario = load_scenario("o365-peak")
    for name, model in scenario.models.items():
        row = row_of(model.engines["h100-80gb"])
        for q, tokens in scenario.workload.generate.shapes[name]["interactive"].prompt:
            assert first_time(row, round(tokens), 0) < scenario.tiers["iw-f"].patience + 250 * tokens, (name, q)


def first_ms(profile: ProfileSettings, prompt: int) -> float:
    return first_time(row_of(profile), prompt, 0) / 1e3


def step_ms(profile: ProfileSettings, sequences: int, kv: int) -> float:
    return iteration_time(row_of(profile), 0, 0.0, sequences, kv) / 1e3


@pytest.mark.parametrize("name", sorted(profile_entries()))
def test_every_profile_is_sound_and_says_where_it_comes_from(name: str) -> None:
    profile = ProfileSettings.model_validate(profile_entries()[name])
    _, gpu, tp = name.split("/")
    assert (gpu, tp) == (profile.gpu, f"tp{profile.tp}")
    assert profile.source
    assert profile.fitted
    assert "%" in profile.error
    assert profile.weights
    assert profile.kv_per_token
    assert 3 < first_ms(profile, 1) < 100
    assert 3 < step_ms(profile, 1, 1000) < 60
    assert 1 < step_ms(profile, 128, 128 * 3000) / step_ms(profile, 1, 3000) < 20


@pytest.mark.parametrize(
    ("name", "prompt", "milliseconds"),  # medians of the published measurements at batch 1
    [
        ("llama-2-70b/h100-80gb/tp8", 2048, 136),
        ("llama-2-70b/h100-80gb/tp8", 8192, 844),
        ("llama-2-70b/a100-80gb/tp8", 8192, 1549),
        ("bloom-176b/h100-80gb/tp8", 2048, 253),
        ("bloom-176b/a100-80gb/tp8", 4096, 1348),
    ],
)
def test_profiles_reproduce_measured_prefill_times(name: str, prompt: int, milliseconds: float) -> None:
    profile = ProfileSettings.model_validate(profile_entries()[name])
    assert first_ms(profile, prompt) == pytest.approx(milliseconds, rel=0.12)


@pytest.mark.parametrize(
    ("name", "sequences", "milliseconds"),  # prompts of 512 tokens, 128 tokens made
    [
        ("llama-2-70b/h100-80gb/tp8", 1, 29.7),
        ("llama-2-70b/h100-80gb/tp8", 32, 38.8),
        ("llama-2-70b/a100-80gb/tp8", 32, 53.0),
        ("bloom-176b/h100-80gb/tp8", 1, 36.1),
        ("bloom-176b/a100-80gb/tp8", 32, 65.3),
    ],
)
def test_profiles_reproduce_measured_decode_times(name: str, sequences: int, milliseconds: float) -> None:
    profile = ProfileSettings.model_validate(profile_entries()[name])
    assert step_ms(profile, sequences, sequences * 576) == pytest.approx(milliseconds, rel=0.08)


def test_kv_capacity_is_the_arithmetic_its_comment_shows() -> None:
    for name, entry in profile_entries().items():
        profile = ProfileSettings.model_validate(entry)
        if profile.gpus != 8:
            continue
        assert profile.weights is not None
        assert profile.kv_per_token is not None
        free = 8 * 80 * 2**30 * 0.9 - profile.weights - 8 * 2 * 2**30
        assert profile.kv_tokens == free / profile.kv_per_token // 16 * 16, name


def nodes() -> list[type[BaseModel]]:
    found = [getattr(config, name) for name in config.__all__ if name.endswith("Settings")]
    return [*found, Scenario]


def test_every_setting_says_what_it_is_or_why_its_default_is_what_it_is() -> None:
    silent = [f"{node.__name__}.{name}" for node in nodes() for name, field in node.model_fields.items() if not field.description]
    assert not silent


PLAIN: dict[str, tuple[type, ...]] = {
    "any": (dict, list, str, int, float, bool, type(None)),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "string": (),
    "object": (),
    "array": (),
}


def fits(value: Value, schema: JsonValue, root: dict[str, JsonValue]) -> bool:
    """Whether a value fits a schema: the keywords that pydantic writes for the settings tree."""
    assert isinstance(schema, dict)
    if isinstance(link := schema.get("$ref"), str):
        target = root["$defs"]
        assert isinstance(target, dict)
        return fits(value, target[link.removeprefix("#/$defs/")], root)
    if isinstance(choices := schema.get("anyOf"), list) and not any(fits(value, choice, root) for choice in choices):
        return False
    if "const" in schema and value != schema["const"]:
        return False
    if isinstance(enum := schema.get("enum"), list) and value not in enum:
        return False
    match value, schema.get("type", "any"):
        case dict(), "object":
            return object_fits(value, schema, root)
        case list(), "array":
            inner = schema.get("items", {})
            return all(fits(item, inner, root) for item in value)
        case str(), "string":
            return re.search(str(schema.get("pattern", "")), value) is not None
        case _, kind:
            return type(value) in PLAIN[str(kind)]


def object_fits(value: dict[str, Value], schema: dict[str, JsonValue], root: dict[str, JsonValue]) -> bool:
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    assert isinstance(properties, dict)
    assert isinstance(patterns, dict)
    for key, inner in value.items():
        below = properties.get(key, next((one for pattern, one in patterns.items() if re.search(pattern, key)), None))
        if below is None:
            if schema.get("additionalProperties") is False:
                return False
        elif not fits(inner, below, root):
            return False
    return True


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_files_fit_the_schema(name: str) -> None:
    schema = scenario_schema()
    assert fits(read_file(BUILTIN / f"{name}.yaml").values, schema, schema)


@pytest.mark.parametrize(
    "value",
    [
        {"fleet": {"strat": 1}},
        {"flet": {}},
        {"gpus": {"h100": {"memory": 80}}},
        {"regions": {"a b": {}}},
        {"tiers": {"iw-f": {"ttft": "1 parsec"}}},
        {"order": {"kind": "fifo"}},
        {"models": {"m": {"engines": {"h100": 3}}}},
        {"extends": 3},
    ],
)
def test_mistakes_do_not_fit_the_schema(value: dict[str, Value]) -> None:
    schema = scenario_schema()
    assert not fits(value, schema, schema)


@pytest.mark.parametrize(("carbon", "right"), [(380, True), ([380, 361.5], True), ("grid.csv", True), ({}, False)])
def test_carbon_is_a_number_numbers_or_a_file(carbon: Value, right: bool) -> None:
    schema = scenario_schema()
    assert fits({"regions": {"east": {"carbon": carbon}}}, schema, schema) == right


def test_resolved_scenarios_fit_the_schema() -> None:
    schema = scenario_schema()
    tree: dict[str, Value] = load("quickstart").scenario.model_dump(mode="json", exclude_none=True)
    assert fits(tree, schema, schema)
    assert set(tree) == set(Scenario.model_fields) - {"live"}  # absent unless the scenario is served
