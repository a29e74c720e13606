"""The hub's side: a reviewed plan becomes one sealed file for each cluster, with a sequence that grows.

Solves nothing and asks no cluster. A file appears under its name when it is whole. Read next: `plan_record.py`, `sealed.py`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros
from sageserve.data.results.plans import PlanFile
from sageserve.live.agent.plan_record import ClusterPlan, TargetPlan, decoded, encoded
from sageserve.live.agent.sealed import seal
from sageserve.live.agent.source import plan_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEQUENCE_MOST: Final = 1 << 53


@dataclass(frozen=True, slots=True)
class PlanTimes:
    """When a plan begins to hold, when it ends, and what time it is, microseconds since 1970."""

    begins: Micros
    ends: Micros
    wall: Micros


def cluster_targets(scenario: Scenario, file: PlanFile) -> dict[str, dict[str, TargetPlan]]:
    """What a plan means for the targets of each cluster, within their own bounds.

    Raises:
        ConfigError: no target has a pool of the plan.
    """
    lines = {line.pool: line for line in file.pools}
    found: dict[str, dict[str, TargetPlan]] = {}
    targets = {} if scenario.live is None else scenario.live.targets
    for name, one in targets.items():
        if (line := lines.get(one.pool)) is None:
            continue
        count = min(max(line.target, one.min), one.max)
        why = line.why if count == line.target else f"{line.why}; the plan's {line.target} is beyond {one.min}..{one.max}"
        found.setdefault(one.cluster, {})[name] = TargetPlan(one.pool, one.kind, one.name, count, why)
    if not found:
        raise ConfigError("no target has a pool of the plan", hint=f"its pools: {', '.join(lines)}")
    return found


def next_sequence(folder: Path, cluster: str, wall: Micros) -> int:
    """The sequence of the next plan: above the one that is there, and the seconds since 1970 where none is.

    Raises:
        ConfigError: what is there cannot be read.
    """
    path = folder / plan_name(cluster)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return wall // SECOND
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="name another folder with --to") from None
    before = decoded(content.partition(b"\n")[2], ClusterPlan, str(path))
    if isinstance(before, str) or not 0 <= before.sequence < SEQUENCE_MOST:
        said = before if isinstance(before, str) else f"{path} has sequence {before.sequence}"
        raise ConfigError(
            f"which sequence comes next is not known: {said}",
            hint="say it with --sequence, above the one that `sageserve hub status` tells",
        )
    return max(before.sequence + 1, wall // SECOND)


def publish(folder: Path, plan: ClusterPlan, key: "Ed25519PrivateKey") -> Path:
    """Write a cluster's plan, sealed.

    Raises:
        ConfigError: it cannot be written there.
    """
    path = folder / plan_name(plan.cluster)
    part = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part.write_bytes(seal(encoded(plan), key))
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="name another folder with --to") from None
    finally:
        part.unlink(missing_ok=True)
    return path
