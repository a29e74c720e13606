"""What a run's journal says about instances: when each could hold work, and under which GPUs.

Read next: `test_known_mistakes.py`, `test_churn.py`.
"""

from dataclasses import dataclass

from sageserve.base.records import UNSET
from sageserve.base.units import NEVER, Micros
from sageserve.core.actions import Reclaim, Release, Source, Start
from sageserve.core.events import InstanceDrained, InstanceReady, SpotTaken, StartFailed
from sageserve.sim.run import Run


@dataclass(frozen=True, slots=True)
class Begun:
    """A start or reclaim: `source`, when it was asked for, and when it served (NEVER if it did not)."""

    instance: int
    source: Source
    asked: Micros
    ready: Micros


def begun(run: Run) -> list[Begun]:
    """Every start and reclaim after the first instant, in order of the answers."""
    asked: dict[int, tuple[Source, Micros]] = {}
    found: list[Begun] = []
    for entry in run.journal:
        match entry.event:
            case InstanceReady(instance=i) if i in asked:
                found.append(Begun(i, *asked.pop(i), entry.now))
            case StartFailed(instance=i):
                found.append(Begun(i, *asked.pop(i), NEVER))
            case _:
                pass
        for action in entry.actions:
            match action:
                case Start(instance=i, source=source):
                    asked[i] = source, entry.now
                case Reclaim(instance=i):
                    asked[i] = Source.SPOT, entry.now
                case _:
                    pass
    return found


def terms(run: Run) -> dict[int, list[tuple[Micros, Micros]]]:
    """By instance, the spans from its opening to the moment it was found empty; NEVER where it still serves."""
    spans: dict[int, list[tuple[Micros, Micros]]] = {}
    for entry in run.journal:
        match entry.event:
            case InstanceReady(instance=i):
                spans.setdefault(i, []).append((entry.now, NEVER))
            case InstanceDrained(instance=i):
                spans[i][-1] = spans[i][-1][0], entry.now
            case _:
                pass
    return spans


def check_work_is_inside_terms(run: Run) -> None:
    """Each request was served within one term of its instance: never before it opened, never after it was given away."""
    spans = terms(run)
    for row in run.requests:
        if row["finish"] != UNSET:
            inside = [(begin, end) for begin, end in spans[int(row["instance"])] if begin < row["first"] <= row["finish"] <= end]
            assert len(inside) == 1, f"{row} is in none of {spans[int(row['instance'])]}"


def check_gpus_change_hands_one_at_a_time(run: Run, first: list[tuple[int, ...]]) -> None:
    """Each GPU is given to an instance only after the one before gave it back.

    Args:
        run: a finished run.
        first: the GPUs of each instance before it was played.
    """
    owner = {(stock_of(run, i), n): i for i, gpus in enumerate(first) for n in gpus}

    def give_back(i: int) -> None:
        mine = [key for key, holder in owner.items() if holder == i]
        assert mine, f"instance {i} gives back GPUs it does not hold"
        for key in mine:
            del owner[key]

    for entry in run.journal:
        if isinstance(entry.event, StartFailed | SpotTaken):
            give_back(entry.event.instance)
        for action in entry.actions:
            match action:
                case Release(instance=i):
                    give_back(i)
                case Start(instance=i, gpus=gpus):
                    for key in ((stock_of(run, i), n) for n in gpus):
                        assert key not in owner, f"GPU {key}: {owner[key]} still holds it when {i} gets it"
                        owner[key] = i
                case _:
                    pass
    assert {key: holder for key, holder in owner.items() if run.fleet.gpus[holder]} == owner


def stock_of(run: Run, i: int) -> int:
    """The stock that an instance's GPUs come from."""
    return run.fleet.pools[run.fleet.pool_of[i]].stock
