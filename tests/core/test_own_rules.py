"""Rules of the user's are found, and refused with file and line where they could be other than the same function everywhere.

Read next: `tests/sim/test_own_rules.py` for what is done with them; docs/how-to/own-routers.md.
"""

from pathlib import Path

import pytest

from sageserve.base.errors import SageServeError
from sageserve.core.own_rules import ADMISSION, INSTANCE, NUMBERS, REGION, made_up, own_rule, own_rules
from sageserve.data.own_code import own_code
from sageserve.data.scenarios.load import load_scenario
from tests.worlds import SMALL_FLEET

HEAD = "import math, random\nfrom math import exp\nK = 3\nT = (1, 2.5)\nL = [1]\n\ndef twice(x):\n    return K * x\n\n"
LINE = HEAD.count("\n") + 2


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str, given: str = "in_flight") -> str:
    name = f"mine_{abs(hash((folder, body))):x}"
    (folder / f"{name}.py").write_text(f"{HEAD}def rule({given}):\n{body}\n", "utf-8")
    monkeypatch.syspath_prepend(str(folder))
    return f"{name}:rule"


def test_a_rule_is_asked_for_the_numbers_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "    return twice(in_flight) + T[1] + exp(0) + math.floor(number) + sum([in_flight for _ in range(2)])"
    rule = own_rule(INSTANCE, write(tmp_path, monkeypatch, body, "number, in_flight"))
    assert rule.wants == ("number", "in_flight")
    assert [NUMBERS[INSTANCE][place] for place in rule.places] == ["number", "in_flight"]
    assert rule.ask({"number": 4.5, "in_flight": 2}) == 6 + 2.5 + 1 + 4 + 4


def test_what_a_rule_reads_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, monkeypatch, "    return twice(in_flight)")
    rule = own_rule(INSTANCE, name)
    module = __import__(name.partition(":")[0])
    monkeypatch.setattr(module, "K", 100)
    assert rule.ask({"in_flight": 2}) == 6


@pytest.mark.parametrize(
    ("body", "given", "said"),
    [
        ("    return random.random()", "in_flight", "uses random, which is the module random"),
        ("    return L[0]", "in_flight", "uses L, which is a list"),
        ("    return nothing", "in_flight", "uses nothing, which its module does not define"),
        ("    return open('x')", "in_flight", "uses open"),
        ("    global K\n    K = 5", "in_flight", "changes K of its module"),
        ("    import time", "in_flight", "imports time"),
        ("    return rule(in_flight)", "in_flight", "calls rule, which calls it"),
        ("    yield 1", "in_flight", "is no plain function"),
        ("    try: in_flight += 1\n    except: pass\n    return in_flight", "in_flight", "catches errors"),
        ("    try: in_flight += 1\n    finally: return in_flight", "in_flight", "catches errors"),
        ("    return 1", "inflight", "asks for 'inflight', which no instance has: did you mean in_flight?"),
        ("    return 1", "wait", "asks for 'wait', which no instance has"),
        ("    return 1", "*numbers", "takes *numbers, which nothing is given for"),
        ("    return 1", "in_flight=3", "takes in_flight=3, which nothing is given for"),
        ("    return 1 / in_flight", "in_flight", "ZeroDivisionError: float division by zero, for in_flight = 0"),
        ("    return math.log(in_flight)", "in_flight", "ValueError: math domain error, for in_flight = 0"),
        ("    return 'first'", "in_flight", "gave 'first', not a number, for in_flight = "),
        ("    return None", "in_flight", "gave None, not a number"),
        (
            "    while in_flight >= 0: in_flight += 1",
            "in_flight",
            "does not end: it did 100,000 lines for one request, for in_fl",
        ),
    ],
)
def test_what_is_no_rule_is_refused_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, given: str, said: str
) -> None:
    name = write(tmp_path, monkeypatch, body, given)
    with pytest.raises(SageServeError) as told:
        own_rule(INSTANCE, name)
    assert said in told.value.message
    assert any(f"{name.partition(':')[0]}.py:{LINE + off}: " in told.value.message for off in (-1, 0, 1))
    assert name in told.value.message
    assert told.value.hint


@pytest.mark.parametrize("kind", [INSTANCE, REGION, ADMISSION])
def test_made_up_numbers_are_always_the_same_and_cover_their_range(kind: str) -> None:
    rows = list(made_up(kind))
    assert rows == list(made_up(kind))
    assert all(tuple(row) == NUMBERS[kind] for row in rows)
    assert all(len({row[name] for row in rows}) > 1 for name in NUMBERS[kind])
    assert all(row["found"] < row["prompt"] for row in rows if "found" in row)


def test_a_scenario_names_rules_and_their_source_is_part_of_its_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = write(tmp_path, monkeypatch, "    return in_flight")
    assert not list(own_rules(load_scenario(SMALL_FLEET)))
    found = load_scenario(SMALL_FLEET, overrides=[f"routing.instance={name}", f"admission={name}"])
    assert [rule.name for rule in own_rules(found)] == [name, name]
    before = own_code(found)
    assert before.keys() == {name}
    module = name.partition(":")[0]
    monkeypatch.delitem(__import__("sys").modules, module)
    (tmp_path / f"{module}.py").write_text("def rule(in_flight):\n    return -1.0 * in_flight\n", "utf-8")
    assert own_code(found) != before
