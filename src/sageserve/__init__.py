"""SageServe: decide how a fleet of LLM engines is scaled, routed and scheduled, in a simulator and live.

    import sageserve

    result = sageserve.simulate("quickstart", strategy="foresight")
    result.summary.gpu_hours.total
    result.requests()                      # an Arrow table, ready for pandas and polars

Importing it costs nothing: each function brings what it needs when it is first used. Read next: `sageserve.api` for the
functions, docs/tutorial/python.md, `sageserve.plugins` for strategies of your own, docs/why/architecture.md (the layers).
"""

from typing import TYPE_CHECKING

from sageserve.base.version import __version__ as __version__

if TYPE_CHECKING:
    from sageserve.api import (
        ComparisonResult,
        SageServeError,
        Scenario,
        SimulationResult,
        Sizing,
        Summary,
        TraceOptions,
        compare,
        forecast,
        generate,
        load,
        plan,
        report,
        simulate,
        size,
    )

__all__ = [
    "ComparisonResult",
    "SageServeError",
    "Scenario",
    "SimulationResult",
    "Sizing",
    "Summary",
    "TraceOptions",
    "compare",
    "forecast",
    "generate",
    "load",
    "plan",
    "report",
    "simulate",
    "size",
]


def __getattr__(name: str) -> object:
    """What is imported when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'sageserve' has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 # as everything here: not before it is needed

    import_module("sageserve.cli.kernels").use_cache()  # before anything that compiles is imported
    found: object = getattr(import_module("sageserve.api"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
