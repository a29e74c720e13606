"""Setting values in a scenario's text: what is set is read back, every other line stays, and nothing is half done.

Read next: `test_draft.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.errors import ConfigError, Infeasible
from sageserve.data.scenarios.draft import Draft, ModelTraffic, draft_model, draft_text
from sageserve.data.scenarios.edit import set_values
from sageserve.data.scenarios.load import Loaded, load, load_scenario
from sageserve.data.yaml_positions import Value, read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A drafted scenario."""
    models = (draft_model("llama-3.1-8b", "h100-80gb", ModelTraffic()),)
    path = tmp_path / "mine.yaml"
    path.write_text(draft_text(Draft("mine", "", models, ("east", "west"))), "utf-8")
    return path


def value_of(loaded: Loaded, keys: tuple[str, ...]) -> Value:
    return dict(loaded.leaves())[keys]


SETTINGS = [
    ("fleet.start=3", ("fleet", "start"), 3),
    ("tiers.chat.ttft=2s", ("tiers", "chat", "ttft"), "2s"),  # in a mapping on one line
    ("tiers.chat.percentile=90%", ("tiers", "chat", "percentile"), 0.9),  # a new key there
    ("regions.east.gpus.h100-80gb.price.spot=20/h", ("regions", "east", "gpus", "h100-80gb", "price", "spot"), "20/h"),
    ("strategy.foresight.every=20m", ("strategy", "foresight", "every"), "20m"),  # nothing of it is there
    ("models.llama-3.1-8b.load.local=3m", ("models", "llama-3.1-8b", "load", "local"), "3m"),  # a key with dots
    ("about='said: \"so\" # here'", ("about",), 'said: "so" # here'),
    ("seed=7", ("seed",), 7),
    (
        "workload.generate.shapes.llama-3.1-8b.batch.share=0.5",
        ("workload", "generate", "shapes", "llama-3.1-8b", "batch", "share"),
        0.5,
    ),
]


@pytest.mark.parametrize(("setting", "keys", "value"), SETTINGS)
def test_what_is_set_is_read_back_and_the_rest_stays(file: Path, setting: str, keys: tuple[str, ...], value: Value) -> None:
    before, old = file.read_text("utf-8").splitlines(), load(file)
    set_values(file, [setting])
    after, new = file.read_text("utf-8").splitlines(), load(file)
    assert value_of(new, keys) == value
    assert {k: v for k, v in new.leaves() if k != keys} == {k: v for k, v in old.leaves() if k != keys}
    lost = [line for line in before if line not in after]
    assert len(lost) <= 1, "one line is changed, or lines are added"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_all_of_them_together_and_again_give_the_same(file: Path) -> None:
    set_values(file, [setting for setting, _, _ in SETTINGS])
    once = file.read_text("utf-8")
    set_values(file, [setting for setting, _, _ in reversed(SETTINGS)])
    assert file.read_text("utf-8") == once


def test_a_guess_that_was_set_is_none_any_more(file: Path) -> None:
    guesses = file.read_text("utf-8").count("# guess")
    set_values(file, ["regions.east.gpus.h100-80gb.price.on_demand=60/h"])
    assert file.read_text("utf-8").count("# guess") == guesses - 1
    assert "          on_demand: 60/h\n" in file.read_text("utf-8")


def test_a_list_over_several_lines_is_replaced_whole(file: Path) -> None:
    file.write_text(
        file.read_text("utf-8") + "    bursts:\n      - {at: 1h, length: 1h, factor: 2}\n      # why\n\nseed: 3 # own\n", "utf-8"
    )
    set_values(file, ["workload.generate.bursts=[]"])
    assert file.read_text("utf-8").endswith("    bursts:\n      []\n      # why\n\nseed: 3 # own\n")
    assert load_scenario(file).workload.generate.bursts == ()


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("fleet.strt=3", ConfigError, "nothing was changed; scenario mine: .*mine.yaml:.*did you mean 'start'"),
        ("fleet.start=900", Infeasible, "nothing was changed"),
        ("fleet.start", ConfigError, "not a setting"),
        ("fleet.start.x=3", ConfigError, "nothing was changed; fleet.start is one value, which holds no 'x'"),
    ],
)
def test_a_file_that_would_be_wrong_is_not_written(file: Path, setting: str, error: type[ConfigError], said: str) -> None:
    before = file.read_bytes()
    with pytest.raises(error, match=said):
        set_values(file, [setting])
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_file_that_extends_another_gets_its_own_keys(tmp_path: Path) -> None:
    path = tmp_path / "peak.yaml"
    path.write_text("extends: quickstart # the small one\n", "utf-8")
    set_values(path, ["fleet.start=4", "models.llama-3.3-70b.load.local=1m"])
    assert read_yaml(path.read_text("utf-8"), "x").values == {
        "extends": "quickstart",
        "fleet": {"start": 4},
        "models": {"llama-3.3-70b": {"load": {"local": "1m"}}},
    }
    assert path.read_text("utf-8").startswith("extends: quickstart # the small one\n")


@pytest.mark.parametrize(
    ("text", "setting", "after"),
    [
        ("live:\nseed: 3\n", "live.gateway.port=81", "live: {gateway: {port: 81}}\nseed: 3\n"),
        (
            "fleet: {start: 3, # why\n  minimum: 2 # this\n}\n",
            "fleet.maximum=9",
            "fleet: {start: 3, # why\n  minimum: 2, maximum: 9 # this\n}\n",
        ),
        ("fleet: {start: 3,}\n", "fleet.maximum=9", "fleet: {start: 3, maximum: 9,}\n"),
        ("fleet: { }\n", "fleet.maximum=9", "fleet: { maximum: 9}\n"),
        ("{seed: 3}", "fleet.maximum=9", "{seed: 3, fleet: {maximum: 9}}"),
        ("about: >\n  two\n  lines\n\nseed: 3\n", "about=one", "about: one\n\nseed: 3\n"),
        ("fleet:\r\n  start: 3 # guess: x\r\nseed: 3\r\n", "fleet.start=4", "fleet:\r\n  start: 4\r\nseed: 3\r\n"),
        ("fleet:\r\n  start: 3\r\nseed: 3", "fleet.maximum=9", "fleet:\r\n  start: 3\r\n  maximum: 9\r\nseed: 3"),
        ("seed: 3\r\n# last", "fleet.maximum=9", "seed: 3\r\nfleet:\r\n  maximum: 9\r\n# last"),
        ("\ufeffseed: 3\n", "seed=4", "\ufeffseed: 4\n"),
    ],
)
def test_any_way_of_writing_yaml_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, setting: str, after: str
) -> None:
    monkeypatch.setattr("sageserve.data.scenarios.edit.load", lambda *_, **__: None)  # these are parts of scenarios
    path = tmp_path / "part.yaml"
    path.write_bytes(text.encode())
    set_values(path, [setting])
    assert path.read_bytes().decode() == after


def test_a_link_leads_where_it_did_and_the_mode_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    real, link = tmp_path / "kept" / "real.yaml", tmp_path / "link.yaml"
    real.write_text("extends: quickstart\n", "utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    set_values(link, ["fleet.start=4"])
    assert link.is_symlink()
    assert "start: 4" in real.read_text("utf-8")
    assert real.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in real.parent.iterdir()] == [real.name]
