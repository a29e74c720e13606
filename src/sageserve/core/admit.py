"""Admission: whether a request that is routed at its arrival is let in, the wait it would meet, and when to come again if not.

Numbers in, numbers out: the gateway calls these as plain Python, the simulator compiles them into its loop. Interactive requests
that are not let in are turned away (shed); batch work comes again later. Knows no tier and no clock. Read next: `route.py`, which
chooses the endpoint that is asked; docs/reference/gateway.md, "How a request finds its instance".
"""

from typing import Final

from sageserve.base.kernel import kernel
from sageserve.base.units import SECOND, Micros

LONGEST: Final = 120 * SECOND  # OpenAI's clients do not retry at all when told to wait for longer
SHORTEST: Final = 100_000  # us: an answer below this brings a client back before anything can have changed


@kernel
def predicted_wait(backlog: float, in_flight: int, sequences: int, work: float, instances: int) -> float:
    """Microseconds until a request placed now has its first token, beside its own prefill.

    Two queues may hold it. Prompts before it must be prefilled: `backlog / instances`. When all sequences that engines may run
    are taken, some must finish first: (in flight - sequences) requests of `work` each, shared by the instances. The
    queues overlap, so the longer one counts.

    Args:
        backlog: microseconds of prefill not finished at the endpoint; negative is taken as none.
        in_flight: requests placed there that have not finished.
        sequences: that its open instances can run together.
        work: microseconds of engine time a typical request there needs.
        instances: open instances, at least 1.
    """
    return max(0.0, backlog, (in_flight - sequences) * work) / instances


@kernel
def is_admitted(wait: float, limit: float, in_flight: int, most: int) -> bool:
    """Whether a request is let in.

    Args:
        wait: predicted, microseconds.
        limit: the longest wait its tier's promise leaves room for, microseconds.
        in_flight: requests at the endpoint that have not finished.
        most: as many as may be there, whatever the prediction says.
    """
    return wait <= limit and in_flight < most


def come_again(wait: float, limit: float) -> Micros:
    """Microseconds after which a refused request would be let in, if nobody else came: a queue is worked off in real time."""
    return int(min(LONGEST, max(SHORTEST, wait - limit)))
