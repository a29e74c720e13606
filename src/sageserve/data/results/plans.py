"""plan.json: a plan as a file that people review and programs read: what was asked, what came out, why, and until when it holds.

The whole problem is inside, so that every question about the plan can be answered later by solving again. Written at once or
not at all; a file whose problem was changed after it was solved is refused. Knows formats and hashes, no solver.
Read next: `show/why.py` for its words, `core/plan/explain.py` for the questions.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.config import Scenario
from sageserve.base.errors import PlanError
from sageserve.base.units import Micros
from sageserve.core.plan.explain import AnyPlan
from sageserve.core.plan.horizon import HorizonPlan
from sageserve.core.plan.hourly import Plan, input_hash
from sageserve.core.plan.hourly_rows import HourlyProblem
from sageserve.core.plan.outlook import Outlook
from sageserve.core.plan.what_if import Question
from sageserve.core.plan_once import Expected, Theta
from sageserve.data.own_code import own_code
from sageserve.data.scenarios.load import resolved_yaml

VERSION: Final = 1


class HourPlan(Struct, frozen=True, tag="hour"):
    """The paper's program and its answer: targets for the next hour."""

    question: HourlyProblem
    plan: Plan


class AheadPlan(Struct, frozen=True, tag="ahead"):
    """foresight's program and its answer: a trajectory whose first step is acted on."""

    question: Outlook
    plan: HorizonPlan


class PoolLine(Struct, frozen=True):
    """One pool: instances that serve or are coming, its target, why, and what the change costs in dollars per hour."""

    pool: str
    now: int
    target: int
    why: str
    cost_change_per_hour: float
    price_per_hour: float


class WhatIf(Struct, frozen=True):
    """The same plan under other circumstances, as `demand=1.3,eastus/h100-80gb=0`."""

    changes: str
    solved: HourPlan | AheadPlan
    pools: tuple[PoolLine, ...]


class PlanFile(Struct, frozen=True, kw_only=True):
    """A plan, reviewable.

    Args:
        version: of this format.
        made_at: microseconds from the start of the scenario's time.
        expires_at: when the strategy would plan again; later than that nobody should act on it.
        data_until: the instant the newest whole bin of demand ends.
        scenario: its name.
        scenario_hash: SHA-256 of the resolved scenario, and of the user's own code that it names.
        strategy: whose plan it is.
        demand: where the demand came from, in words.
        solved: the problem and its answer.
        pools: the changes, one line per pool.
        expected: demand planned for, beside what was seen.
        thetas: tokens/s of one instance of each pool.
        notes: what the reader should know, in sentences.
        what_if: the same under other circumstances.
        currency: of every price and cost (ISO 4217).
    """

    version: int = VERSION
    made_at: Micros
    expires_at: Micros
    data_until: Micros
    scenario: str
    scenario_hash: str
    strategy: str
    demand: str
    solved: HourPlan | AheadPlan
    pools: tuple[PoolLine, ...]
    expected: tuple[Expected, ...]
    thetas: tuple[Theta, ...]
    notes: tuple[str, ...] = ()
    what_if: WhatIf | None = None
    currency: str = "USD"


class _Version(Struct):
    version: int


def solved_as(question: Question, plan: AnyPlan) -> HourPlan | AheadPlan:
    """A problem and its answer as one record."""
    if isinstance(question, HourlyProblem) and isinstance(plan, Plan):
        return HourPlan(question, plan)
    assert isinstance(question, Outlook)
    assert isinstance(plan, HorizonPlan)
    return AheadPlan(question, plan)


def scenario_hash(scenario: Scenario) -> str:
    """SHA-256 of the resolved scenario, every default written out, and of the user's own code that it names."""
    own = "".join(f"\0{name}={found}" for name, found in own_code(scenario).items())
    return hashlib.sha256((resolved_yaml(scenario) + own).encode()).hexdigest()


def plan_json(file: PlanFile) -> bytes:
    """The file's bytes: equal plans give equal bytes, and what is read back gives them again (0 and 0.0 are one number)."""
    typed = msgspec.json.decode(msgspec.json.encode(file), type=PlanFile)
    return msgspec.json.format(msgspec.json.encode(typed), indent=2) + b"\n"


def write_plan(path: Path, file: PlanFile) -> None:
    """Write a plan; the file appears under its name only when it is complete.

    Raises:
        PlanError: it cannot be written there.
    """
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        part.write_bytes(plan_json(file))
        os.replace(part, path)  # noqa: PTH105 # one name for the one call that is atomic on every system
    except OSError as error:
        raise PlanError(f"{path} cannot be written: {error.strerror or error}", hint="choose another place with -o") from None
    finally:
        part.unlink(missing_ok=True)


def read_plan(path: Path) -> PlanFile:
    """Read a plan.

    Raises:
        PlanError: there is none, another version wrote it, it is damaged, or its problem is not the one that was solved.
    """
    try:
        text = path.read_bytes()
        version = msgspec.json.decode(text, type=_Version).version
        if version != VERSION:
            raise PlanError(f"{path} is a plan of version {version}; this sageserve reads version {VERSION}", hint="plan again")
        found = msgspec.json.decode(text, type=PlanFile)
    except OSError as error:
        raise PlanError(
            f"{path} cannot be read: {error.strerror or error}", hint="make one: sageserve plan SCENARIO --at TIME -o plan.json"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not a plan of ours ({error})", hint="plan again with -o") from None
    for solved in (found.solved, *([found.what_if.solved] if found.what_if else [])):
        if input_hash(solved.question) != solved.plan.input_hash:
            raise PlanError(
                f"{path}: its problem was changed after it was solved", hint="plan again; plans are not edited by hand"
            )
    return found
