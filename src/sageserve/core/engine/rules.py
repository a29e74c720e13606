"""What an engine decides between two iterations: whom it admits, what it finds of a context in its cache, which rank is slowest.

Beside them what speculation makes: how many tokens in how many iterations. Plain functions of numbers, as in `timing.py`. The
rules around them, and who calls which, are docs/reference/kernel.md, "Inside an instance" and "Adapters". Read next:
`sim/kernel/admission.py` and `live/emulator/batch.py`, the callers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, TypedDict

from sageserve.base.records import CACHE_BLOCK
from sageserve.core.engine.timing import ACCEPTED_BITS, ACCEPTED_PARTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

APART: Final = 2.0**-10
"""Microseconds by which a rank must be slower than another to count as slower: more than sums in another order can differ by."""


class AdapterSlot(TypedDict):
    """A place for a LoRA adapter in an engine's memory; it may be a dictionary or a row of `SLOT`."""

    adapter: int  # that is loaded; -1: none
    users: int  # requests of it in the batch
    used: int  # how late it was last in the batch, in order; 0: never


def slot_for(slots: "Sequence[AdapterSlot] | NDArray[Any]", begin: int, end: int, adapter: int) -> int:
    """The slot that a request of an adapter takes: where it is loaded, else the one that nobody has used for longest.

    Args:
        slots: of all ranks.
        begin: first slot of the rank.
        end: one after its last.
        adapter: of the request.

    Returns:
        -1: all slots are in use by other adapters.
    """
    found = -1
    for k in range(begin, end):
        if slots[k]["adapter"] == adapter:
            return k
        if slots[k]["users"] == 0 and (found < 0 or slots[k]["used"] < slots[found]["used"]):
            found = k
    return found


def tokens_made(steps: int, extra: int) -> int:
    """Tokens that a sequence makes which decodes from an engine's first iteration on, in so many: sums of what is accepted.

    Args:
        steps: iterations in which sequences decode.
        extra: tokens beyond one that each makes in an iteration, in parts of ACCEPTED_PARTS; 0 without speculation.
    """
    return steps + (steps * extra >> ACCEPTED_BITS)


def steps_until(tokens: int, extra: int) -> int:
    """Iterations after which so many tokens are made, at least."""
    if extra == 0:
        return tokens
    whole = ACCEPTED_PARTS + extra
    return (tokens * ACCEPTED_PARTS + whole - 1) // whole


def steps_within(tokens: int, extra: int) -> int:
    """The most iterations after which no more than so many tokens are made."""
    if extra == 0:
        return tokens
    return ((tokens + 1) * ACCEPTED_PARTS - 1) // (ACCEPTED_PARTS + extra)


def fits_memory(used: int, context: int, running: int, capacity: int, drafted: int) -> bool:
    """Whether a context may be admitted beside `running` others: each, the new one too, must get one token and its drafts."""
    room = (running + 1) * (drafted + 1) if running > 0 else 0
    return used + context + 1 + room <= capacity


def fits_whole(used: int, promised: int, context: int, left: int, running: int, capacity: int) -> bool:
    """Whether a context may be admitted where nobody is ever preempted: it, and all that is inside, must fit when they are done.

    Args:
        used: KV tokens in use.
        promised: those that the sequences inside will still take.
        context: of the one that waits.
        left: tokens that it will still make, and those that all inside, itself included, draft at once.
        running: others inside; whoever is alone is let in as by `fits_memory`, or it would wait forever.
        capacity: of the KV cache.
    """
    if running == 0 and used + context + 1 <= capacity:
        return True
    return used + promised + context + left <= capacity


def found_again(cached: int, context: int, lost: int, given: int) -> int:
    """Tokens that a preempted request need not compute: its cached prefix, or what others left of what it had.

    Args:
        cached: tokens of its prompt in the prefix cache.
        context: its prompt and what it has made.
        lost: KV tokens it had computed when it lost its place.
        given: KV tokens that others were given since.
    """
    left = min(lost - given, context - 1)
    return max(cached, left // CACHE_BLOCK * CACHE_BLOCK)


def found_in_blocks(blocks: int, size: int, context: int) -> int:
    """Tokens of a context that need not be computed when its first blocks are in the cache: a last piece always is.

    Args:
        blocks: whole blocks of the trace's size that are there.
        size: tokens of one.
        context: the prompt and what the request has made.
    """
    return min(blocks * size, (context - 1) // CACHE_BLOCK * CACHE_BLOCK)


def rank_load(waiting: int, inside: int) -> int:
    """What a request avoids when it is given to a rank: 4 x waiting + running, as vLLM's front end counts.

    Args:
        waiting: requests that wait at the rank.
        inside: those that wait or run there.
    """
    return 4 * waiting + (inside - waiting)


def is_slower(first: float, step: float, other_first: float, other_step: float) -> bool:
    """Whether a rank is slower than another: by its first iteration, else by how much longer each further one takes."""
    return first > other_first + APART or (first >= other_first - APART and step > other_step)


def before_overtaking(gap: float, rise: float, iterations: int) -> int:
    """Iterations until another rank is the slowest, at most so many.

    Args:
        gap: microseconds by which the other's first iteration is shorter.
        rise: microseconds that each further one takes more than the slowest's.
        iterations: at least 1.
    """
    if rise <= 0.0 or gap + APART >= rise * (iterations - 1):
        return iterations
    return int((gap + APART) / rise) + 1
