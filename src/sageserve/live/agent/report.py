"""What an agent says of itself: which plan it follows, what of it stands in the cluster, what was cut and why. Of a file.

It is believed as much as the folder it comes by: nothing is decided on it. Versions are those of `plan_record.py`. Read next:
`process.py`, which writes it; `cli/hub.py`, which reads it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from sageserve.base.units import Micros
from sageserve.live.agent.plan_record import VERSION, decoded, encoded
from sageserve.live.agent.source import read_file

ENDING: Final = ".status.json"
Followed: TypeAlias = Literal["in-force", "expired", "none"]


class TargetReport(Struct, frozen=True, kw_only=True):
    """One target.

    Args:
        pool: region/model/gpu.
        object: KIND NAMESPACE/NAME.
        planned: instances that the plan wants; None: it says nothing of it, or is not at hand.
        followed: the same within the cluster's settings and the guard; None: it is not followed.
        why: `followed` is not `planned`; empty: it is.
        low, high: minimum and maximum that stand there; None: it has none, or was not read.
        count: replicas that are asked for; None: not read.
        ready: that serve.
        coming: that are on their way.
        stuck: that cannot come.
        rung: how far it may be acted on now.
        withheld: why it is not yet as followed; "not": it is.
        blind: its signals are too old, so nothing is lowered.
        note: what a person should know.
    """

    pool: str
    object: str
    planned: int | None = None
    followed: int | None = None
    why: str = ""
    low: int | None = None
    high: int | None = None
    count: int | None = None
    ready: int = 0
    coming: int = 0
    stuck: int = 0
    rung: str = "observe"
    withheld: str = "not"
    blind: bool = True
    note: str = ""


class AgentReport(Struct, frozen=True, kw_only=True):
    """One cluster.

    Args:
        version: of this format.
        fleet: of it.
        cluster: its name.
        agent: which process wrote this.
        at: when, microseconds since 1970.
        follows: whether the newest plan holds, has ended, or there was none.
        sequence: of that plan; 0: none.
        plan: the beginning of the hash of its inputs.
        age: microseconds since it began to hold.
        until: when it ends, or did.
        heard: when something was last fetched; 0: never.
        refused: why the newest file is not followed; empty: it is.
        detail: the same in a sentence.
        holder: who holds the lease.
        targets: by name.
        notes: what a person should know.
    """

    version: str = VERSION
    fleet: str
    cluster: str
    agent: str
    at: Micros
    follows: Followed
    sequence: int
    plan: str
    age: Micros
    until: Micros
    heard: Micros
    refused: str
    detail: str
    holder: str
    targets: dict[str, TargetReport]
    notes: tuple[str, ...]


def write_report(folder: Path, report: AgentReport) -> None:
    """Put it in the place of the one before, all at once.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / f"{report.cluster}{ENDING}"
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(encoded(report))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_reports(folder: Path) -> Sequence[tuple[Path, AgentReport | str]]:
    """All reports of a folder, or a sentence about why one cannot be read, by name.

    Raises:
        OSError: the folder cannot be read.
    """
    found: list[tuple[Path, AgentReport | str]] = []
    for path in sorted(one for one in folder.iterdir() if one.name.endswith(ENDING)):
        try:
            found.append((path, decoded(read_file(path), AgentReport, "the report")))
        except OSError as error:
            found.append((path, f"the report cannot be read: {error.strerror or error}"))
    return found
