"""What the store keeps: files, batches, jobs and results, and the tables of their moves.

Instants are wall time in microseconds since 1970. A batch has a number beside its public id: numbers grow with creation and
keep keys short. Knows no database. Read next: `interface.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, auto
from typing import Final, TypeAlias, TypeVar

from msgspec import Struct

from sageserve.base.errors import SageServeError
from sageserve.base.units import Micros


class StoreError(SageServeError):
    """The store cannot do what was asked."""


class StoreFull(StoreError):
    """There is no room to write; what was kept before is safe, and the same call works once there is room."""


class StoreAway(StoreError):
    """The database cannot be used at the moment: not reachable, or held by someone else for too long."""


class StoreTooNew(StoreError):
    """A later version of SageServe made this database."""


class BadData(StoreError):
    """The database takes everything but this: the fault is in what it was given, and giving it again would change nothing."""


class Unknown(StoreError):
    """There is no such file or batch."""


class Superseded(StoreError):
    """Another process leads the queue by now: nothing of an earlier term is written any more."""


class BadMove(StoreError):
    """What was asked is not possible in the state a batch or a job is in; nothing changed."""


class JobState(IntEnum):
    """Where a job is."""

    HELD = 0  # its batch is still being read
    QUEUED = 1
    RUNNING = 2  # taken by the control process of one epoch
    DONE = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6


class JobSignal(Enum):
    """What may happen to a job."""

    ADMIT = auto()
    LEASE = auto()
    SUCCEED = auto()
    FAIL = auto()
    LOSE = auto()
    CANCEL = auto()
    EXPIRE = auto()


JOB_MOVES: Final[Mapping[tuple[JobState, JobSignal], JobState]] = {
    (JobState.HELD, JobSignal.ADMIT): JobState.QUEUED,
    (JobState.QUEUED, JobSignal.LEASE): JobState.RUNNING,
    (JobState.RUNNING, JobSignal.LEASE): JobState.RUNNING,  # another attempt
    (JobState.RUNNING, JobSignal.SUCCEED): JobState.DONE,
    (JobState.RUNNING, JobSignal.FAIL): JobState.FAILED,  # refused for good, or attempts used up
    (JobState.RUNNING, JobSignal.LOSE): JobState.QUEUED,  # its owner died: it runs again
    (JobState.QUEUED, JobSignal.SUCCEED): JobState.DONE,  # that it was taken is not written down, and need not be
    (JobState.QUEUED, JobSignal.FAIL): JobState.FAILED,
    (JobState.QUEUED, JobSignal.CANCEL): JobState.CANCELLED,
    (JobState.RUNNING, JobSignal.CANCEL): JobState.CANCELLED,
    (JobState.QUEUED, JobSignal.EXPIRE): JobState.EXPIRED,
    (JobState.RUNNING, JobSignal.EXPIRE): JobState.EXPIRED,
}
"""Any other pair changes nothing; a result that comes too late is counted."""


class BatchState(StrEnum):
    """Where a batch is; names are OpenAI's but for EXPIRING, which is shown as in_progress."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    EXPIRING = "expiring"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class BatchSignal(Enum):
    """What may happen to a batch."""

    ACCEPT = auto()
    REJECT = auto()
    FINISH = auto()
    CANCEL = auto()
    EXPIRE = auto()
    CLOSE = auto()


BATCH_MOVES: Final[Mapping[tuple[BatchState, BatchSignal], BatchState]] = {
    (BatchState.VALIDATING, BatchSignal.ACCEPT): BatchState.IN_PROGRESS,
    (BatchState.VALIDATING, BatchSignal.REJECT): BatchState.FAILED,
    (BatchState.VALIDATING, BatchSignal.CANCEL): BatchState.CANCELLING,
    (BatchState.IN_PROGRESS, BatchSignal.FINISH): BatchState.FINALIZING,
    (BatchState.IN_PROGRESS, BatchSignal.CANCEL): BatchState.CANCELLING,
    (BatchState.IN_PROGRESS, BatchSignal.EXPIRE): BatchState.EXPIRING,
    (BatchState.FINALIZING, BatchSignal.CLOSE): BatchState.COMPLETED,
    (BatchState.EXPIRING, BatchSignal.CLOSE): BatchState.EXPIRED,
    (BatchState.CANCELLING, BatchSignal.CLOSE): BatchState.CANCELLED,
}
"""Any other pair raises BadMove."""

OPEN_BATCHES: Final = tuple({before: None for before, _ in BATCH_MOVES})
"""States in which a batch still has somewhere to go."""

LATER: Final = (StoreFull, StoreAway)
"""Errors of the store itself: the same call works once there is room, or once the database is back."""

_S = TypeVar("_S")
_G = TypeVar("_G")


def sources(moves: Mapping[tuple[_S, _G], _S], signal: _G) -> list[_S]:
    """States in which a signal means something."""
    return [before for before, heard in moves if heard is signal]


OPEN_JOBS: Final = tuple(sources(JOB_MOVES, JobSignal.CANCEL))
"""States of jobs that wait or run."""


@dataclass(frozen=True, slots=True)
class File:
    """A file; its content is kept in pieces.

    Args:
        id: public.
        owner: name of the key that made it.
        name: as uploaded.
        purpose: batch, or batch_output.
        created_at: wall.
        expires_at: wall; None: never.
        size: bytes.
        ready: complete; others are shown to nobody, and dropped when control begins anew.
    """

    id: str
    owner: str
    name: str
    purpose: str
    created_at: Micros
    expires_at: Micros | None
    size: int = 0
    ready: bool = False


class LineError(Struct, frozen=True):
    """What is wrong with a line of an input file; line is None when it concerns the whole."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Usage(Struct, frozen=True):
    """Tokens."""

    prompt: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            self.prompt + other.prompt,
            self.cached + other.cached,
            self.output + other.output,
            self.reasoning + other.reasoning,
        )


NO_USAGE: Final = Usage()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch.

    Args:
        id: public.
        owner: name of the key that made it.
        endpoint: path that all its jobs ask.
        input_file: id.
        window: as given, such as 24h.
        metadata: the client's own.
        output_expires: seconds that output and error file are kept.
        created_at: wall.
        expires_at: wall; what is not done then is not done.
        number: given by the store; grows.
        state: where it is.
        model: of all its jobs; empty until it was read.
        total: jobs.
        done: jobs that succeeded.
        failed: jobs that are over and did not succeed.
        usage: of the jobs that succeeded.
        errors: why it was rejected.
        output_file: id, of a batch that is over and has successes.
        error_file: id, of a batch that is over and has failures.
        stamps: when it entered which state, by name.
    """

    id: str
    owner: str
    endpoint: str
    input_file: str
    window: str
    metadata: dict[str, str] | None
    output_expires: int
    created_at: Micros
    expires_at: Micros
    number: int = 0
    state: BatchState = BatchState.VALIDATING
    model: str = ""
    total: int = 0
    done: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE
    errors: tuple[LineError, ...] = ()
    output_file: str | None = None
    error_file: str | None = None
    stamps: dict[str, Micros] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether every job is."""
        return self.done + self.failed >= self.total

    def was_over(self, before: Micros | None) -> bool:
        """Whether nothing of it is open any more, since before an instant; None: now."""
        return self.state not in OPEN_BATCHES and (before is None or over_since(self.created_at, self.stamps) < before)


Key: TypeAlias = tuple[int, int]
"""Of a job: number of its batch, its line (from 1)."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A line that was read and found good."""

    line: int
    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A job that may be run.

    Args:
        deadline: of its batch.
        key: number of its batch, and its line: jobs compare by (deadline, key).
        model: name.
        url: path to ask.
        created_at: of its batch.
        attempts: that failed so far.
        size: bytes of the body.
        body: None when it is large: ask the store for it.
        owner: of its batch.
    """

    deadline: Micros
    key: Key
    model: str
    url: str
    created_at: Micros
    attempts: int
    size: int
    body: bytes | None
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A job is taken, with so many failed attempts behind it."""

    key: Key
    attempts: int


@dataclass(frozen=True, slots=True)
class Result:
    """How a job ended.

    Args:
        key: of the job.
        good: it succeeded.
        status: of HTTP; 0: there was no answer.
        request_id: of the gateway.
        body: JSON on one line; empty when there was no answer.
        error: what happened instead of an answer.
        usage: tokens.
    """

    key: Key
    good: bool
    status: int = 0
    request_id: str = ""
    body: bytes = b""
    error: str = ""
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class LineOutcome:
    """A job of a batch that is over, for its output and error file; `result` is None when it never ended by itself."""

    line: int
    custom_id: str
    state: JobState
    result: Result | None


@dataclass(frozen=True, slots=True)
class Committed:
    """What became of a group of leases and results.

    Args:
        recorded: keys of the results that were taken down.
        late: results that were dropped, because their job was over already or is not there any more.
        superseded: another control process has begun since: it holds the queue now, and nothing was taken down.
    """

    recorded: tuple[Key, ...]
    late: int
    superseded: bool


@dataclass(frozen=True, slots=True)
class ListRange:
    """Which part of a list: after an id, newest first or oldest first."""

    after: str | None
    limit: int
    newest_first: bool = True


def share_of_each(limit: int, owners: int) -> int:
    """How many jobs of each owner are read when so many are wanted."""
    return max(1, limit // max(1, owners))


def first_of_each(results: Iterable[Result]) -> dict[Key, Result]:
    """Results by job; of several of one job the first."""
    found: dict[Key, Result] = {}
    for result in results:
        found.setdefault(result.key, result)
    return found


def over_since(created_at: Micros, stamps: Mapping[str, Micros]) -> Micros:
    """When a batch that is over was: at its last stamp, and not before it was made, however the clock was set."""
    return max([created_at, *stamps.values()])


def stamped(stamps: Mapping[str, Micros], state: BatchState, now: Micros) -> dict[str, Micros]:
    """Stamps with that of a state entered now: set once, and never before an earlier one, however the clock was set."""
    return dict(stamps) if state in stamps else {**stamps, str(state): max([now, *stamps.values()])}
