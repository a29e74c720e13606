"""Rules of the user's: compiled into the kernel they decide as the naive reference does, which asks them as plain Python.

Read next: `rules_of_mine.py`; `tests/parity/test_own_rules_live.py` for the gateway; docs/how-to/own-routers.md.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sageserve.base.errors import ConfigError, PluginError
from sageserve.base.kernel import is_plain, run_plain
from sageserve.core.own_rules import ADMISSION, INSTANCE, NUMBERS, REGION, OwnRules, own_rule
from sageserve.sim.kernel.engine import Kernel
from tests.sim.cases import Case, fresh_rows, make_case, seeded
from tests.sim.compare import first_difference, play, watched

MINE = "tests.sim.rules_of_mine:"
TRIED = (
    OwnRules(own_rule(INSTANCE, MINE + "least_full"), own_rule(REGION, MINE + "near_and_free"), None),
    OwnRules(own_rule(INSTANCE, MINE + "packed"), own_rule(REGION, MINE + "calm"), own_rule(ADMISSION, MINE + "strict")),
    OwnRules(own_rule(INSTANCE, MINE + "by_tier"), None, own_rule(ADMISSION, MINE + "generous")),
)
CASES = 54
LEAST = {"sent by a rule of the user's": 300, "turned away by a rule of the user's": 100, "conversation in the cache": 20}


def ruled(seed: int) -> Case:
    """A world of `tests/sim/cases.py`, in which rules of the user's decide."""
    case = make_case(seeded(seed), crowded=seed % 3 == 0)
    rules = TRIED[seed % len(TRIED)]
    return replace(case, setup=replace(case.setup, rules=rules, admission=case.setup.admission or rules.admission is not None))


def test_compiled_and_plain_rules_decide_alike() -> None:
    counts: Counter[str] = Counter()
    for seed in range(CASES):
        case = ruled(seed)
        expected, reference = play(case)
        difference = first_difference(expected, watched(case))
        assert not difference, f"seed {seed}: {difference}"
        counts += reference.counts
    missed = {name: counts[name] for name, least in LEAST.items() if counts[name] < least}
    assert not missed, f"the cases no longer reach: {missed}"


def test_every_number_is_asked_for() -> None:
    for kind, names in NUMBERS.items():
        asked = {name for rules in TRIED for rule in rules if rule.kind == kind for name in rule.wants}
        assert asked == set(names)


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> str:
    name = f"rules_{abs(hash(folder)):x}"
    (folder / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return name


def test_what_fails_in_a_simulation_ends_it_with_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, monkeypatch, "def late(prompt, in_flight):\n    return 1 / (prompt - 7.5)\n")
    case = make_case(seeded(3))
    rule = own_rule(INSTANCE, f"{name}:late")
    rows = fresh_rows(case)
    world = Kernel(replace(case.setup, rules=OwnRules(rule, None, None)), rows)
    world.world.own.arrays["numbers"][0] = 7.5  # no prompt has so many tokens
    world.world.record["own_failed"] = 1
    with pytest.raises(PluginError, match=rf"{name}\.py:2: .*division by zero, for prompt = 7.5, in_flight = 0"):
        world.run_until(0)


@pytest.mark.skipif(is_plain(), reason="nothing is compiled")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("prompt ** 3 + prompt ** 0.3", "gives .* live and .* simulated"),
        ("sum({prompt, 2.0})", "cannot be compiled: No implementation"),
    ],
)
def test_what_would_be_another_rule_when_compiled_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    name = write(tmp_path, monkeypatch, f"def rule(prompt):\n    return {body}\n")
    case = make_case(seeded(3))
    with pytest.raises(ConfigError, match=rf"{name}\.py:\d: the instance rule {name}:rule {said}"):
        Kernel(replace(case.setup, rules=OwnRules(own_rule(INSTANCE, f"{name}:rule"), None, None)), fresh_rows(case))


def test_a_world_without_rules_keeps_nothing_for_them() -> None:
    case = make_case(seeded(3))
    world = Kernel(case.setup, fresh_rows(case)).world
    assert np.all(world.own.arrays["scores"] == 0)
    assert not any(int(world.record[name]) for name in world.own.sizes)


def test_a_process_with_compiled_functions_stays_one() -> None:
    before = is_plain()
    run_plain()
    assert is_plain() == before, "an address of the one kind is none of the other"
