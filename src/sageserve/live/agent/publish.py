"""The hub's side: a reviewed plan becomes one sealed file for each cluster, with a sequence that grows.

Solves nothing and asks no cluster. A file appears under its name when it is whole. Read next: `plan_record.py`, `sealed.py`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sageserve.base.config import Scenario
from sageserve.base.errors import ConfigError
from sageserve.base.units import SECOND, Micros
from sageserve.data.results.plans import PlanFile
from sageserve.live.agent.heard import agent_clusters
from sageserve.live.agent.plan_record import ClusterPlan, TargetPlan, decoded, encoded
from sageserve.live.agent.sealed import NotUnsealed, key_name, seal, unseal
from sageserve.live.agent.source import plan_name, read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def cluster_targets(scenario: Scenario, file: PlanFile) -> dict[str, dict[str, TargetPlan]]:
    """What a plan means for the targets of each cluster, within their own bounds.

    Where some clusters are those of agents, the others are acted on from here, by an order (`sageserve apply`), and get no file.

    Raises:
        ConfigError: no target has a pool of the plan.
    """
    lines = {line.pool: line for line in file.pools}
    found: dict[str, dict[str, TargetPlan]] = {}
    targets = {} if scenario.live is None else scenario.live.targets
    agents = agent_clusters(scenario)
    for name, one in targets.items():
        if (line := lines.get(one.pool)) is None or (agents and one.cluster not in agents):
            continue
        count = min(max(line.target, one.min), one.max)
        why = line.why if count == line.target else f"{line.why}; the plan's {line.target} is beyond {one.min}..{one.max}"
        found.setdefault(one.cluster, {})[name] = TargetPlan(one.pool, one.kind, one.name, count, why)
    if not found:
        of = f" in {', '.join(agents)}, of which live.clusters names an agent" if agents else ""
        raise ConfigError(f"no target{of} has a pool of the plan", hint=f"its pools: {', '.join(lines)}")
    return found


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One publisher at a time, or two would give the same sequence to different plans.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to: {error.strerror}", hint="name another folder with --to") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def next_sequence(folder: Path, cluster: str, wall: Micros, key: "Ed25519PrivateKey", wanted: int = 0) -> int:
    """The sequence of the next plan: above the one that is there, and the seconds since 1970 where none is.

    Args:
        folder: of plans.
        cluster: whose.
        wall: microseconds since 1970.
        key: whose seal of what is there is believed: others may write to a folder that is served.
        wanted: another one; 0: none.

    Raises:
        ConfigError: what is there cannot be read or believed, or is not below `wanted`.
    """
    path = folder / plan_name(cluster)
    try:
        content = read_file(path)
    except FileNotFoundError:
        return wanted or wall // SECOND
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}", hint="name another folder with --to") from None
    opened = unseal(content, {key_name(key.public_key()): key.public_key()})
    before = opened.detail if isinstance(opened, NotUnsealed) else decoded(opened.content, ClusterPlan, str(path))
    if isinstance(before, str):
        if wanted:
            return wanted
        raise ConfigError(
            f"which sequence comes next is not known: {path}: {before}",
            hint="say it with --sequence, above the one that `sageserve hub status` tells",
        )
    if wanted and wanted <= before.sequence:
        raise ConfigError(
            f"--sequence {wanted}: {path} has {before.sequence} already, and agents refuse what is older", hint="leave it out"
        )
    return wanted or max(before.sequence + 1, wall // SECOND)


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
