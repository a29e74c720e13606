"""Strategies and forecasters of the user's: found, refused, watched; every mistake names their file and line.

Read next: `tests/data/results/test_own_code_in_results.py` for their hash, docs/how-to/own-strategies.md.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from sageserve.base.errors import ConfigError, PlanError, PluginError, SageServeError
from sageserve.base.units import HOUR
from sageserve.core.actions import Decision, Reason
from sageserve.core.events import EndpointSeen, Observed
from sageserve.core.fleet import Fleet
from sageserve.core.forecast import Series, forecaster
from sageserve.core.own_rules import own_rules
from sageserve.core.strategies import layout_of, strategy_kind
from sageserve.core.strategies.own import OwnStrategy
from sageserve.data.scenarios.load import load_scenario
from tests.worlds import SMALL_FLEET

Write = Callable[[str], str]
START = "from sageserve.plugins import *\n\nclass Mine(Unified):\n    def __init__(self, scenario, layout, earlier): ...\n\n"
QUICKSTART = load_scenario(SMALL_FLEET)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Puts text into a module that is imported from the current folder, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def put(text: str) -> str:
        name = f"own_{len(list(tmp_path.iterdir()))}_of_{tmp_path.name[-12:].replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(dedent(text), "utf-8")
        return name

    yield put
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def decide(name: str) -> tuple[OwnStrategy, Callable[[], list[object]]]:
    """The strategy of that name, and what it answers to one look at a fleet."""
    layout = layout_of(QUICKSTART)
    made = strategy_kind(name)(QUICKSTART, layout, None)
    assert isinstance(made, OwnStrategy)
    fleet = Fleet(layout.pools, layout.stocks, layout.instances, np.zeros(layout.instances, np.int64))
    seen = Observed(0, tuple(EndpointSeen(0.5, 0.5, 0.5) for _ in range(layout.endpoints)), ())
    return made, lambda: list(made.handle(0, seen, fleet))


def test_a_class_of_a_file_in_the_current_folder_is_a_strategy(write: Write) -> None:
    module = write(
        START + "    def handle(self, now, event, fleet):\n        yield Decision(0, 2, Reason.OWN_RULE, 0.5, 0, 0, 0)\n"
    )
    _, look = decide(f"{module}:Mine")
    assert look() == [Decision(0, 2, Reason.OWN_RULE, 0.5, 0, 0, 0)]


def test_nothing_is_an_answer_too(write: Write) -> None:
    assert decide(write(START + "    def handle(self, now, event, fleet):\n        return\n") + ":Mine")[1]() == []


@pytest.mark.parametrize(
    ("body", "said", "line"),
    [
        ("    def handle(self, now, event, fleet):\n        return 1 / 0\n", "ZeroDivisionError: division by zero", 7),
        ("    def handle(self, now, event, fleet):\n        yield fleet.pools[99]\n", "IndexError", 7),
        ("    def handle(self, now, event, fleet):\n        fleet.ready(0, now)\n", "LawBroken", 7),
        ("    def handle(self, now, event, fleet):\n        yield 'more'\n", "answered 'more'", 6),
        ("    def handle(self, now, event, fleet):\n        return 3\n", "answered 3", 6),
        ("    def handle(self, now, event, fleet):\n        yield Decision(-1, 1, Reason.OWN_RULE, 0, 0, 0, 0)\n", "pool -1", 6),
        ("    def handle(self, now, event, fleet):\n        yield Decision(0, 1.5, Reason.OWN_RULE, 0, 0, 0, 0)\n", "of 1.5", 6),
        ("    def handle(self, now, event, fleet):\n        yield Decision(0, 0, Reason.OWN_RULE, 0, 0, 0, 0)\n", "of 0", 6),
        ("    def handle(self, now, event, fleet):\n        yield Decision(0, 1, 'why', 0, 0, 0, 0)\n", "reason 'why'", 6),
        ("    def handle(self, now, event, fleet):\n        yield Feed(-1, 0, 0)\n", "endpoint -1", 6),
    ],
)
def test_a_mistake_while_it_decides_names_file_and_line(write: Write, body: str, said: str, line: int) -> None:
    module = write(START + body)
    made, look = decide(f"{module}:Mine")
    with pytest.raises(PluginError) as told:
        look()
    assert said in told.value.message
    assert f"{module}:Mine" in told.value.message
    assert f"{module}.py:{line}: " in told.value.message
    assert told.value.hint
    heard: list[str] = []
    made.outlive(heard.append)
    assert look() == []
    assert heard == [told.value.message]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "import nothing_of_that_name\n",
            "own_0",
        ),
        ("def Mine(:\n", "SyntaxError"),
        ("raise RuntimeError('no')\n", "RuntimeError: no"),
        ("class Other: ...\n", "defines no 'Mine'"),
        ("Mine = 3\n", "not a class"),
        ("class Mine: ...\n", "has no method roles(scenario)"),
        (START, "has no method handle(self, now, event, fleet)"),
        (START + "    def handle(self, event): ...\n", "handle takes self, event, and is called with self, now, event, fleet"),
        (
            "from sageserve.plugins import *\nclass Mine(Unified):\n    def handle(self, now, event, fleet): ...\n",
            "when it is made",
        ),
        (
            START + "    def handle(self, now, event, fleet): ...\n    def roles(self, scenario): ...\n",
            "roles takes self, scenario",
        ),
    ],
)
def test_what_is_no_strategy_is_refused_when_it_is_found(write: Write, text: str, said: str) -> None:
    module = write(text)
    with pytest.raises(SageServeError) as told:
        strategy_kind(f"{module}:Mine")
    assert said in told.value.message
    assert told.value.hint
    assert isinstance(told.value, ConfigError | PluginError)


@pytest.mark.parametrize("answer", ["(1.5,)", "(1, 2)", "(-1,)", "5", "None"])
def test_counts_that_cannot_be_are_refused(write: Write, answer: str) -> None:
    rest = (
        f"    def handle(self, now, event, fleet): ...\n    @staticmethod\n    def minimum(scenario):\n        return {answer}\n"
    )
    module = write(START + rest)
    with pytest.raises(PluginError, match=rf"{module}\.py:\d+: .*minimum gave"):
        strategy_kind(f"{module}:Mine").minimum(QUICKSTART)


def test_a_module_that_is_not_there_is_told_apart_from_one_that_it_lacks(write: Write) -> None:
    with pytest.raises(ConfigError, match="there is no module 'nowhere'"):
        strategy_kind("nowhere:Mine")
    with pytest.raises(ConfigError, match=r"there is no module 'nowhere'"):
        strategy_kind("nowhere.inside:Mine")
    module = write("import nothing_of_that_name\n")
    with pytest.raises(PluginError, match=rf"{module}\.py:1: .*No module named 'nothing_of_that_name'"):
        strategy_kind(f"{module}:Mine")


def test_installed_packages_register_strategies_forecasters_and_rules(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = "def packed(number): return number\n"
    module = write(
        f"{START}    def handle(self, now, event, fleet): ...\n\nclass Flat:\n    def fit(self, history): ...\n\n{rule}"
    )
    info = tmp_path / "queue_rule-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: queue-rule\nVersion: 1.0\n", "utf-8")
    groups = f"[sageserve.strategies]\nqueue-rule = {module}:Mine\n\n[sageserve.forecasters]\nflat = {module}:Flat\n"
    groups += f"\n[sageserve.rules]\npacked = {module}:packed\n"
    (info / "entry_points.txt").write_text(groups, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert strategy_kind("queue-rule").minimum(QUICKSTART) == (2,)
    assert forecaster("flat").name == "flat"
    rules = own_rules(load_scenario("quickstart", overrides=["routing.instance=packed"]))
    assert rules.instance is not None
    assert (rules.instance.name, rules.instance.wants) == ("packed", ("number",))
    with pytest.raises(ConfigError, match="'packd' is not one of"):
        load_scenario("quickstart", overrides=["routing.instance=packd"])
    with pytest.raises(ConfigError, match=r"did you mean queue-rule\?"):
        strategy_kind("queue-rul")
    with pytest.raises(PlanError, match="no forecaster is called 'fla'") as told:
        forecaster("fla")
    assert "flat" in told.value.hint


@pytest.mark.parametrize("find", [strategy_kind, forecaster])
def test_what_is_not_written_in_python_is_refused(find: Callable[[str], object]) -> None:
    with pytest.raises(ConfigError, match="builtins:dict"):
        find("builtins:dict")


FORECAST = """
from sageserve.plugins import *
import numpy as np
class Mine:
    def fit(self, history):
        self.history = history
        return self
    def predict(self, bins, quantiles=()):
        h = self.history
        return {answer}
"""


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("QuantileForecast(h.end, h.bin, np.ones(bins), quantiles, np.ones((bins, len(quantiles))), False)", ""),
        ("QuantileForecast(h.end, h.bin, [1] * bins, list(quantiles), [[1, 1]] * bins, False)", ""),
        (
            "QuantileForecast(h.end, h.bin, [None] * bins, quantiles, np.ones((bins, 2)), False)",
            "a forecast that is negative or no",
        ),
        ("QuantileForecast(h.end, h.bin, np.ones(bins), None, np.ones((bins, 2)), False)", "no array of numbers"),
        ("QuantileForecast(h.end, h.bin, np.ones(bins), quantiles, [[1], [1, 2], [1]], False)", "no array of numbers"),
        ("QuantileForecast(h.end, h.bin, ['x'] * bins, quantiles, np.ones((bins, 2)), False)", "no array of numbers"),
        ("7", "gave int"),
        ("QuantileForecast(0, h.bin, np.ones(bins), quantiles, np.ones((bins, len(quantiles))), False)", "the history ends at"),
        ("QuantileForecast(h.end, h.bin, np.ones(bins), (0.1,), np.ones((bins, 1)), False)", "gave the quantiles"),
        ("QuantileForecast(h.end, h.bin, np.ones(1), quantiles, np.ones((bins, len(quantiles))), False)", "gave shapes"),
        ("QuantileForecast(h.end, h.bin, -np.ones(bins), quantiles, np.ones((bins, len(quantiles))), False)", "negative"),
        ("QuantileForecast(h.end, h.bin, np.ones(bins), quantiles, np.ones((bins, 2)) * [2, 1], False)", "higher quantile"),
        ("h.nothing", "AttributeError"),
    ],
)
def test_what_a_forecaster_says_is_looked_at(write: Write, answer: str, said: str) -> None:
    module = write(FORECAST.format(answer=answer))
    history = Series(np.ones(30), HOUR)
    fitted = forecaster(f"{module}:Mine").fit(history)
    if not said:
        found = fitted.predict(3, (0.5, 0.9))
        assert found.at(0.9).tolist() == [1.0, 1.0, 1.0]
        assert found.peak(0, 3 * HOUR) == 1.0
        return
    with pytest.raises(PluginError, match=rf"{module}\.py:\d+: .*{said}"):
        fitted.predict(3, (0.5, 0.9))
