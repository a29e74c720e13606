"""Admission: whether an interactive request is let in: the wait it would meet, and when to come again if it is not.

Numbers in, numbers out; plain Python, because boxing the arguments of a compiled function costs more than this arithmetic.
Knows no tier and no clock. Read next: `route.py`, which chooses the endpoint that is asked; docs/reference/gateway.md.
"""

from typing import Final

from sageserve.base.units import SECOND, Micros

LONGEST: Final = 120 * SECOND  # OpenAI's clients do not retry at all when told to wait for longer
SHORTEST: Final = 100_000  # us: an answer below this brings a client back before anything can have changed


def predicted_wait(*, backlog: float, in_flight: int, sequences: float, work: float, instances: int) -> float:
    """Microseconds until a request placed now has its first token, beside its own prefill.

    Two queues may hold it. Prompts before it must be prefilled: `backlog / instances`. When all sequences that engines may run
    are taken, some must finish first: (in flight - sequences) requests of `work` each, shared by the instances. The
    queues overlap, so the longer one counts.

    Args:
        backlog: microseconds of prefill not finished at the endpoint; negative is taken as none.
        in_flight: requests sent to it that have not come back.
        sequences: that its open instances can run together.
        work: microseconds of engine time a typical request there needs.
        instances: open instances, at least 1.
    """
    return max(0.0, backlog, (in_flight - sequences) * work) / instances


def is_admitted(*, wait: float, limit: float, in_flight: int, most: float) -> bool:
    """Whether a request is let in.

    Args:
        wait: predicted, microseconds.
        limit: the longest wait its tier's promise leaves room for, microseconds.
        in_flight: requests at the endpoint that have not come back.
        most: as many as may be there, whatever the prediction says.
    """
    return wait <= limit and in_flight < most


def come_again(wait: float, limit: float) -> Micros:
    """Microseconds after which a refused request would be let in, if nobody else came: a queue is worked off in real time."""
    return int(min(LONGEST, max(SHORTEST, wait - limit)))
