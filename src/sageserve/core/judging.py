"""Whether a new revision breaks a promise that the old one keeps, by what was asked of both, and kept.

Wilson's intervals, so that chance is told from fault. Knows no fleet. Read next: `rollout.py`, the caller.
"""

from dataclasses import dataclass
from typing import Final

SURE: Final = 0.999  # of intervals: a rollout looks many times, and none of the looks may see by chance what is not there
DOUBT: Final = (
    0.8  # of intervals that lie apart: so much says that a version may be broken, and more is asked before the others follow
)


@dataclass(frozen=True, slots=True)
class RevisionKept:
    """Requests asked of a revision, and those whose promise was kept."""

    asked: int
    kept: int

    def __sub__(self, other: "RevisionKept") -> "RevisionKept":
        return RevisionKept(self.asked - other.asked, self.kept - other.kept)


def prepare() -> None:
    """Load what judging takes: half a second, which a process that serves meanwhile spends elsewhere."""
    interval(1, 1)


def interval(asked: int, kept: int, level: float = SURE) -> tuple[float, float]:
    """Wilson's interval of the share that is kept (SciPy's; Wilson 1927); nothing is known of nothing."""
    from scipy.stats import binomtest  # noqa: PLC0415  # half a second that only rollouts pay

    if asked == 0:
        return 0.0, 1.0
    found = binomtest(kept, asked).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def is_broken(promised: float, old: RevisionKept, new: RevisionKept, level: float = SURE) -> bool:
    """Whether a new revision breaks its promise and does worse than the old one beside it, both more than by chance."""
    if new.kept >= promised * new.asked:
        return False  # what was seen lies in its interval
    most = interval(new.asked, new.kept, level)[1]
    return most < promised and most < interval(old.asked, old.kept, level)[0]
