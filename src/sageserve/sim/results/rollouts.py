"""What rollouts cost: GPU-hours beyond what was wanted, and requests that missed their promise because of the new revision.

Reads a run, changes nothing. Read next: `sim/revisions.py`, `data/results/summary.py` for the record.
"""

from collections.abc import Iterator

import numpy as np

from sageserve.base.units import HOUR, NEVER, SECOND
from sageserve.core.actions import RolloutWhy
from sageserve.core.rollout import Rollout
from sageserve.data.results.summary import RevisionCounts, RolloutSummary
from sageserve.sim.results.meter import blocks
from sageserve.sim.run import Run

_DIGITS = 6


def rollouts_of(run: Run) -> tuple[RolloutSummary, ...]:
    """What became of each, in the order of the scenario."""
    return tuple(_summed_up(run, one) for one in sorted(run.rollouts, key=lambda one: one.plan.revision))


def _summed_up(run: Run, one: Rollout) -> RolloutSummary:
    old, new = _counts(run, one)
    return RolloutSummary(
        model=run.layout.names.models[one.plan.model],
        step=one.step.value,
        why=next((roll.why.value for _, roll in reversed(one.steps) if roll.why is not RolloutWhy.REPLACED), ""),
        begun_s=None if one.begun == NEVER else one.begun / SECOND,
        ended_s=None if one.ended == NEVER else one.ended / SECOND,
        old=old,
        new=new,
        missed_more=max(0, round(new.missed - new.requests * old.missed / old.requests)) if old.requests else None,
        surplus_gpu_hours=round(one.surplus_gpu_us / HOUR, _DIGITS),
        steps=tuple(f"{roll.step.value}: {roll.why.value}" for _, roll in one.steps),
    )


def _counts(run: Run, one: Rollout) -> Iterator[RevisionCounts]:
    """Of the old and the new revision, interactive requests that arrived from its begin to its end."""
    batch = np.array([tier.batch for tier in run.scenario.tiers.values()])
    found = np.zeros((2, 2), np.int64)
    if one.begun < NEVER and run.revisions is not None:
        for block in blocks(run):
            rows = block.rows
            there = (rows["model"] == one.plan.model) & ~batch[rows["tier"]] & ~block.undecided
            there &= (rows["arrival"] >= one.begun) & (rows["arrival"] < one.ended)
            revision = run.revisions.of(rows)
            for k, part in enumerate(((revision >= 0) & (revision != one.plan.revision), revision == one.plan.revision)):
                found[k] += int((there & part).sum()), int((there & part & ~block.met).sum())
    return (RevisionCounts(*row) for row in found.tolist())
