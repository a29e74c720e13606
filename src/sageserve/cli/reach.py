"""Warnings about promises that idle engines miss, before anything is played: no number of instances keeps those.

Read next: `sim/reach.py`.
"""

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from sageserve.base.config import Scenario
    from sageserve.base.records import Trace


def warn_of_promises(scenario: "Scenario", trace: "Trace | None" = None) -> None:
    """Say on stderr which promises are out of reach, of the requests of a trace, or of those the scenario itself describes."""
    from sageserve.core.strategies import layout_of
    from sageserve.sim.reach import out_of_reach, typical

    if trace is None and not scenario.workload.generate.shapes:
        return
    for one in out_of_reach(scenario, layout_of(scenario), typical(scenario) if trace is None else trace):
        typer.echo(f"warning: {one.text}", err=True)
