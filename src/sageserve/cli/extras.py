"""What a bare install leaves out: which extra brings which module, and the one sentence for a command that needs one.

A command that starts processes or writes files asks before it does; for the rest, `main.py` turns the import that failed into
the same sentence. Imports none of them. Read next: pyproject.toml, which names the packages.
"""

import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from sageserve.base.errors import ConfigError

if TYPE_CHECKING:
    from sageserve.base.config import Scenario

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = {
    "agents": ("cryptography",),
    "forecast": ("statsforecast",),
    "grafana": ("grafana_foundation_sdk",),
    "keda": ("grpc", "google.protobuf"),
    "kubernetes": ("lightkube",),
    "live": (
        "uvloop",
        "httptools",
        "orjson",
        "httpx",
        "starlette",
        "uvicorn",
        "python_multipart",
        "sqlalchemy",
        "alembic",
        "prometheus_client",
        "opentelemetry.sdk",
        "opentelemetry.exporter.otlp.proto.http",
        *(("backports.zstd",) if sys.version_info < (3, 14) else ()),  # the standard library's from then on
    ),
    "postgres": ("psycopg",),
    "ray": ("ray",),
    "redis": ("redis",),
}
"""Modules by extra, as the code imports them."""


def need(extra: str) -> None:
    """Refuse to go on without the modules of an extra.

    Raises:
        ConfigError: one of them is not installed.
    """
    for module in EXTRAS[extra]:
        if not _present(module):
            raise lacking(module, extra)


def need_for(scenario: "Scenario") -> None:
    """Refuse a scenario that asks for more than is installed, before a process is started for it.

    Raises:
        ConfigError: the store's driver is not installed, or there is no such strategy.
        PlanError: the forecaster's library is not.
        PluginError: a strategy or forecaster of the user's cannot be imported.
    """
    from sageserve.core.forecast import forecaster
    from sageserve.core.strategies import layout_of

    if scenario.live is not None and scenario.live.store.startswith("postgres"):
        need("postgres")
    if scenario.live is not None and scenario.live.scaler is not None:
        need("keda")
    if scenario.live is not None and scenario.live.gates:
        need("redis")
    layout_of(scenario)
    strategy = scenario.strategy
    if strategy.name == "foresight":
        forecaster(strategy.foresight.forecaster)
    elif strategy.name.startswith("lt-"):
        forecaster(strategy.planned.forecaster)


def extra_of(error: ImportError) -> str | None:
    """The extra that brings the module which could not be imported; None: no extra does."""
    wanted = (error.name or "").partition(".")[0]
    return next((extra for extra, modules in EXTRAS.items() for one in modules if one.partition(".")[0] == wanted), None)


def lacking(module: str, extra: str) -> ConfigError:
    """Say that a module is missing, and what brings it."""
    return ConfigError(f"this needs {module}, which is not installed", hint=f"pip install 'sageserve[{extra}]'")


def _present(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package it is in
        return False
