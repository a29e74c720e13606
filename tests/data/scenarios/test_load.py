"""Scenarios from files: laying over each other, origins, typos, and everything wrong on one screen."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError, SageServeError
from sageserve.base.units import HOUR, SECOND
from sageserve.data.scenarios.errors import COMPLAINTS_MAX
from sageserve.data.scenarios.load import load, load_scenario, resolved_yaml

SMALL = """\
gpus:
  h100: {memory: 80GiB}
regions:
  east: {gpus: {h100: {gpus: 64, price: {on_demand: 98.32/h}}}}
models:
  m-1.5:
    context: 4096
    engines:
      h100:
        gpu: h100
        tp: 8
        gpus: 8
        iteration_ms: [[1, 30], [8192, 360]]
        decode_us_per_sequence: 200
        kv_ns_per_token: 170
        attention_ns_per_token2: 16
        kv_tokens: 1e6
        source: made up for a test
tiers:
  iw-f: {ttft: 1s}
  niw: {deadline: 24h, priority: 1}
fleet: {start: 4}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def refusal(path: Path, *overrides: str) -> SageServeError:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides=overrides)
    return caught.value


def written(tmp_path: Path, text: str, name: str = "own.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_values_have_the_units_of_the_code(small: Path) -> None:
    scenario = load_scenario(small)
    assert scenario.name == "small"
    assert scenario.gpus["h100"].memory == 80 * 2**30
    assert scenario.regions["east"].gpus["h100"].price.on_demand == 98.32
    assert scenario.tiers["niw"].deadline == 24 * HOUR
    assert scenario.models["m-1.5"].engines["h100"].kv_tokens == 1_000_000


def test_every_value_knows_where_it_came_from(small: Path) -> None:
    loaded = load(small, overrides=["fleet.start=5", "models.m-1.5.context=2048", 'models."m-1.5".load.local=5m'])
    engine = ("models", "m-1.5", "engines", "h100")
    assert loaded.scenario.fleet.start == 5
    assert loaded.scenario.models["m-1.5"].context == 2048
    assert loaded.scenario.models["m-1.5"].load.local == 300 * SECOND
    assert loaded.origin(("fleet", "start")) == "--set fleet.start=5"
    assert loaded.origin(("models", "m-1.5", "context")) == "--set models.m-1.5.context=2048"
    assert loaded.origin((*engine, "tp")) == f"{small}:11"
    assert loaded.origin(("fleet", "minimum")).startswith("default: ")
    assert "(paper)" in loaded.origin(("fleet", "minimum"))
    assert loaded.origin(("name",)) == "name of the file"
    assert all(loaded.origin(keys) for keys, _ in loaded.leaves())


def test_a_switch_stands_for_a_node_and_knows_where_it_came_from(small: Path, tmp_path: Path) -> None:
    file = tmp_path / "off.yaml"
    file.write_text(f"extends: {small}\nadmission: off\n", "utf-8")
    act = ("admission", "act")
    assert load_scenario(small).admission.act
    assert load(small).origin(act).startswith("default: ")
    assert not load_scenario(file).admission.act
    assert load(file).origin(act) == f"{file}:2"
    assert load(file).origin(("admission", "wait")).startswith("default: ")
    assert load_scenario(file, overrides=["admission=on"]).admission.act
    again = load_scenario(file, overrides=["admission.wait=2"]).admission
    assert (again.act, again.wait) == (True, 2.0), "settings of its own turn it on"


def test_extended_files_are_laid_in_order_and_null_takes_away(small: Path, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    written(tmp_path, "seed: 7\nfleet: {start: 3, maximum: 9}\nname: middle\n", "deep/middle.yaml")
    top = written(
        tmp_path,
        "extends: [small.yaml, deep/middle.yaml]\ntiers: {niw: null, iw-n: {ttft: 60s}}\nfleet: {maximum: 8}\n",
        "top.yaml",
    )
    loaded = load(top)
    assert loaded.scenario.name == "top"
    assert loaded.scenario.seed == 7
    assert (loaded.scenario.fleet.start, loaded.scenario.fleet.maximum) == (3, 8)
    assert list(loaded.scenario.tiers) == ["iw-f", "iw-n"]
    assert loaded.origin(("fleet", "start")) == f"{tmp_path / 'deep/middle.yaml'}:2"
    assert loaded.origin(("fleet", "maximum")) == f"{top}:3"
    assert loaded.origin(("tiers", "iw-f", "ttft")) == f"{small}:20"


def test_files_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "extends: b.yaml\n", "a.yaml")
    b = written(tmp_path, "extends: a.yaml\n", "b.yaml")
    assert "circle" in refusal(b).message


def test_an_engine_may_name_a_library_profile_and_change_parts_of_it(small: Path, tmp_path: Path) -> None:
    profile = "models: {m-1.5: {engines: {h100: null, h100-80gb: llama-3.1-8b/h100-80gb/tp8}}}\n"
    hardware = "gpus: {h100-80gb: {memory: 80GiB}}\nregions: {east: {gpus: {h100-80gb: {gpus: 64, price: {on_demand: 98/h}}}}}\n"
    named = written(tmp_path, f"extends: small.yaml\n{hardware}{profile}", "named.yaml")
    changed = written(tmp_path, "extends: named.yaml\nmodels: {m-1.5: {engines: {h100-80gb: {kv_tokens: 5000}}}}\n")
    loaded = load(changed, overrides=["models.m-1.5.engines.h100-80gb.max_sequences=64"])
    engine, plain = (
        loaded.scenario.models["m-1.5"].engines["h100-80gb"],
        load_scenario(named).models["m-1.5"].engines["h100-80gb"],
    )
    assert engine == plain.model_copy(update={"kv_tokens": 5000, "max_sequences": 64})
    at = ("models", "m-1.5", "engines", "h100-80gb")
    assert loaded.origin((*at, "iteration_ms")).startswith("profiles.yaml:")
    assert loaded.origin((*at, "kv_tokens")) == f"{changed}:2"


def test_values_that_a_model_says_for_its_engines_come_from_there(small: Path, tmp_path: Path) -> None:
    engines = "engines: {h100: null, h100-80gb: llama-3.1-8b/h100-80gb/tp8}"
    profile = f"models: {{m-1.5: {{adapters: {{slots: 4, size: 1MB, adapter_us: 1}}, {engines}}}}}\n"
    hardware = "gpus: {h100-80gb: {memory: 80GiB}}\nregions: {east: {gpus: {h100-80gb: {gpus: 64, price: {on_demand: 98/h}}}}}\n"
    file = written(tmp_path, f"extends: small.yaml\n{hardware}{profile}", "slots.yaml")
    engine = ("models", "m-1.5", "engines", "h100-80gb")

    def said(*overrides: str) -> dict[str, str]:
        loaded = load(file, overrides=overrides)
        keys = [("kv_tokens",), *(("adapters", name) for name in ("slots", "size", "any_us", "rank", "counted"))]
        return {one[-1]: loaded.origin((*engine, *one)).partition(":")[0] for one in keys}

    at = str(file)
    taken = {"size": at, "any_us": "derived", "rank": "default", "counted": "derived"}
    assert said() == {"kv_tokens": "profiles.yaml", "slots": at, **taken}
    assert load(file).origin((*engine, "kv_tokens")).endswith(", less the slots of adapters")
    assert said("models.m-1.5.adapters.slots=2")["slots"].startswith("--set models.m-1.5.adapters.slots=2")
    own = said("models.m-1.5.engines.h100-80gb.adapters={slots: 1, size: 2MB, adapter_us: 1, any_us: 2}")
    assert own["slots"] == own["size"] == "--set models.m-1.5.engines.h100-80gb.adapters={slots"
    counted = load(file, overrides=["models.m-1.5.adapters.counted=true"])
    assert counted.origin((*engine, "adapters", "counted")) == "--set models.m-1.5.adapters.counted=true"
    assert "less" not in counted.origin((*engine, "kv_tokens"))
    both = load(file, overrides=["models.m-1.5.speculative={tokens: 2, acceptance: 0.7, draft: 0.1}"])
    assert both.origin((*engine, "speculative", "tokens")).startswith("--set models.m-1.5.speculative=")


def test_an_unknown_profile_is_named_once_with_a_suggestion(small: Path) -> None:
    error = refusal(small, "models.m-1.5.engines.h100=llama-3.1-8b/h100-80gb/tp9")
    assert "did you mean 'llama-3.1-8b/h100-80gb/tp8'?" in error.message
    assert "settings are wrong" not in error.message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("fleet.strat=3", "fleet.strat: unknown key; did you mean 'start'?"),
        ("flet.start=3", "flet: unknown key; did you mean 'fleet'?"),
        ("fleet.start=three", "'three' is not a whole number"),
        ("fleet.start=true", "True is not a whole number"),
        ("fleet.start=-1", "-1 is less than 0"),
        ("fleet.maximum=10001", "10001 is more than 10000"),
        ("fleet=3", "needs settings of its own (start, minimum, idle, maximum, gpu, starts, endpoints), not 3"),
        ("gpus.h100.memory=80", "80 is not a size: write a number with one of"),
        ("tiers.iw-f.ttft=1", "1 has no unit: write a duration such as 1s"),
        ("regions.east.gpus.h100.price.on_demand=98.32", "98.32 is not a price: write dollars per hour, as in 98.32/h"),
        ("tiers.iw-f.percentile=95", "95 is not a share"),
        ("order.kind=fifo", "'fifo' is not one of fcfs, edf, pf, dpa"),
        ("tiers.iw-f.regions=orgin", "'orgin' is not one of any, origin, nor a list"),
        ("tiers.iw-f.regions=5", "5 is not one of any, origin, nor a list"),
        ("tiers.iw-f.regions=[]", "tiers.iw-f.regions: needs 1 entries or more, has 0"),
        ("tiers.iw-f.regions=[a b]", "tiers.iw-f.regions.0: 'a b' is not a name"),
        ("workload.generate.bursts=3", "needs a list, not 3"),
        ("workload.generate.bursts=[{at: 1h}]", "is missing"),
        ("spot.donate=1", "1 is neither true nor false"),
        ("about=5", "5 is not text"),
        ("models.m-1.5.context=null", "models.m-1.5.context: is missing"),
        ("tiers=null", "tiers: is missing"),
        ("name=a b", "is not a name"),
        ("seed=99999999999999999999", "is not a whole number"),
        ("admission=of", "'of' is neither on nor off, nor settings of its own (act, wait, queued, rule)"),
        ("admission=5", "needs settings of its own (act, wait, queued, rule), not 5"),
        ("currency=usd", "currency: 'usd' is not a currency: write the three capitals of ISO 4217"),
        ("live.tls={certificate: cert.pem, key: /k}", "live.tls.certificate: 'cert.pem' is not an absolute path"),
        ("regions.east.carbon=-3", "regions.east.carbon: -3 is less than 0"),
        ("regions.east.carbon=true", "regions.east.carbon: True is not a number"),
        ("regions.east.carbon=[]", "regions.east.carbon: needs 1 entries or more, has 0"),
        ("regions.east.carbon=[400, x]", "regions.east.carbon.1: 'x' is not a number"),
    ],
)
def test_a_wrong_setting_is_told_in_plain_words_with_its_place(small: Path, override: str, words: str) -> None:
    error = refusal(small, override)
    assert words in error.message
    assert f"--set {override}" in error.message
    assert "pydantic" not in str(error).lower()
    assert "needs 1 entries" not in error.message or "has 0" in words  # of a list whose entries are wrong, they are told
    assert "tuple[" not in error.message  # how pydantic names one of several types
    assert error.hint


def test_a_wrong_setting_in_a_file_has_its_line(small: Path, tmp_path: Path) -> None:
    own = written(tmp_path, "extends: small.yaml\n\nfleet:\n  start: 3\n  strat: 4\n")
    assert f"{own}:5: fleet.strat: unknown key; did you mean 'start'?" in refusal(own).message


def test_all_that_is_wrong_is_on_one_screen(small: Path, tmp_path: Path) -> None:
    lines = [f"  wrong-{i}: 1" for i in range(25)]
    own = written(tmp_path, "\n".join(["extends: [small.yaml, nowhere.yaml]", "seed: 1", "seed: 2", "fleet:", *lines]))
    shown = refusal(own).message.splitlines()
    assert "27 settings are wrong" in shown[0]
    assert len(shown) == COMPLAINTS_MAX + 2
    assert "nowhere.yaml" in shown[1] or "nowhere.yaml" in shown[2]
    assert any("given twice, first in line 2" in line for line in shown)
    assert shown[-1].strip() == f"and {27 - COMPLAINTS_MAX} more"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("quickstrat", "did you mean 'quickstart'?"),
        ("./nowhere.yaml", "there is no file"),
        ("profiles", "no built-in scenario"),
    ],
)
def test_a_scenario_that_is_not_there_is_told_with_a_way_out(reference: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(reference)
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"\x1f\x8b\x08", "UTF-8"), (b"\xff\xfe", "UTF-8"), (b"# " + b"x" * (1 << 20), "larger than 1 MiB"), (b"", "is missing")],
)
def test_files_that_are_no_scenarios_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(data)
    assert words in refusal(path).message


@pytest.mark.parametrize("override", ["fleet.start", "=3", "", "a..b=[", "fleet.start=[1", "a=b: c: d"])
def test_a_setting_that_cannot_be_read_is_refused(small: Path, override: str) -> None:
    assert "--set" in refusal(small, override).message


def test_the_resolved_dump_loads_back_and_is_stable(small: Path, tmp_path: Path) -> None:
    scenario = load_scenario(
        small, overrides=["tiers.iw-f.itl=50.5ms", "workload.generate.bursts=[{at: 1h, length: 90s, factor: 8}]"]
    )
    text = resolved_yaml(scenario)
    own = written(tmp_path, text)
    assert load_scenario(own) == scenario
    assert resolved_yaml(load_scenario(own)) == text


@given(
    start=st.integers(2, 8),
    seed=st.integers(0, 2**62),
    ttft=st.integers(1_000_000, 10**12),
    price=st.floats(0, 1e5),
    threshold=st.floats(0, 1),
)
def test_any_legal_scenario_survives_its_dump(
    tmp_path_factory: pytest.TempPathFactory, start: int, seed: int, ttft: int, price: float, threshold: float
) -> None:
    folder = tmp_path_factory.mktemp("dump")
    base = load_scenario(written(folder, SMALL))
    tree = base.model_dump(mode="json", exclude_none=True)
    scenario = Scenario.model_validate(tree).model_copy(
        update={
            "seed": seed,
            "fleet": base.fleet.model_copy(update={"start": start}),
            "tiers": {"t": base.tiers["iw-f"].model_copy(update={"ttft": ttft})},
            "routing": base.routing.model_copy(update={"threshold": threshold}),
            "spot": base.spot.model_copy(update={"reclaimed_by_cloud_per_hour": price}),
        }
    )
    assert load_scenario(written(folder, resolved_yaml(scenario))) == scenario


def test_an_override_of_one_setting_changes_nothing_else(small: Path) -> None:
    plain = load_scenario(small).model_dump()
    changed = load_scenario(small, overrides=["fleet.minimum=1"]).model_dump()
    assert changed["fleet"].pop("minimum") == 1
    plain["fleet"].pop("minimum")
    assert changed == plain


def test_who_changes_a_written_scenario_changes_what_its_model_says_of_all_engines(tmp_path: Path) -> None:
    speculative = "models.qwen3-32b.speculative={tokens: 2, acceptance: 0.7, draft: 0.1}"
    said = load_scenario("quickstart", overrides=[speculative])
    written = tmp_path / "one.yaml"
    written.write_text(resolved_yaml(said), "utf-8")
    assert load_scenario(str(written)) == said
    more = load_scenario(str(written), overrides=["models.qwen3-32b.speculative.tokens=4"]).models["qwen3-32b"]
    assert [engine.speculative.tokens for engine in more.engines.values() if engine.speculative] == [4]
    own = ["models.qwen3-32b.engines.h200.speculative={tokens: 3, acceptance: 0.7, draft: 0.1}"]
    written.write_text(resolved_yaml(load_scenario("quickstart", overrides=[speculative, *own])), "utf-8")
    kept = load_scenario(str(written), overrides=["models.qwen3-32b.speculative.tokens=4"]).models["qwen3-32b"]
    assert [engine.speculative.tokens for engine in kept.engines.values() if engine.speculative] == [3]


@pytest.mark.parametrize(
    "key", ["decode_us_per_sequence", "kv_ns_per_token", "attention_ns_per_token2", "eager_ms", "first_token_ms"]
)
def test_times_that_would_overflow_a_clock_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: 1e\+300 is more than"):
        load_scenario("quickstart", overrides=[f"models.qwen3-32b.engines.h200.{key}=1e300"])
