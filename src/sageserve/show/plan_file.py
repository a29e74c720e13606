"""A plan as the file that people review: what was solved, the changes it means, and what to know about it.

Solves and writes nothing; a file whose lines are not those of what was solved is refused. Read next: `why.py` for the lines,
`data/results/plans.py` for the file, `core/plan_once.py`.
"""

from pathlib import Path

from sageserve.base.config import Scenario
from sageserve.base.errors import PlanError
from sageserve.base.units import Micros, show_duration
from sageserve.core.plan_once import Proposal
from sageserve.data.results.plans import PlanFile, WhatIf, read_plan, scenario_hash, solved_as
from sageserve.show.why import pool_lines


def plan_file(scenario: Scenario, proposal: Proposal, *, when: Micros, source: str, what_if: WhatIf | None = None) -> PlanFile:
    """The file of a proposal.

    Args:
        scenario: that it was made for.
        proposal: the plan with all it was made from.
        when: the instant it is of, microseconds from the start.
        source: where the demand came from, in words.
        what_if: the same plan under other circumstances.
    """
    notes = ["batch queues are taken as empty: only a run knows what waits"]
    if proposal.data_until < when:
        notes.append(f"demand is known in whole bins, until {show_duration(proposal.data_until)}")
    if proposal.unknown:
        notes.append(f"nothing to forecast from, the last hour's mean stands in: {', '.join(proposal.unknown)}")
    notes += [f"{name}: {note}" for name, note in proposal.incredible]
    return PlanFile(
        made_at=when,
        expires_at=proposal.expires,
        data_until=proposal.data_until,
        scenario=scenario.name,
        scenario_hash=scenario_hash(scenario),
        strategy=scenario.strategy.name,
        demand=source,
        solved=solved_as(proposal.question, proposal.plan),
        pools=pool_lines(proposal.question, proposal.plan),
        expected=proposal.expected,
        thetas=proposal.thetas,
        notes=tuple(notes),
        what_if=what_if,
        currency=scenario.currency,
    )


def solved_plan(path: Path) -> PlanFile:
    """A plan that was kept, with the counts that were solved.

    Raises:
        PlanError: as `read_plan`, and where somebody wrote other counts into it.
    """
    file = read_plan(path)
    other = file.what_if
    for found, lines in ((file.solved, file.pools), *([(other.solved, other.pools)] if other else [])):
        solved = [(line.pool, line.now, line.target) for line in pool_lines(found.question, found.plan)]
        if solved != [(line.pool, line.now, line.target) for line in lines]:
            raise PlanError(f"{path}: its counts are not those that were solved", hint="plan again; plans are not edited by hand")
    return file
