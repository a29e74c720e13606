"""Which answers come slower than their tier promises (`itl`), by load: the part of the response curve that is about decoding.

An iteration gives every sequence that decodes a token, so a token takes as long as an iteration: longer the more sequences there
are, and longer still when prompts are computed beside them. How many there are follows from how long they take, so both settle
together. Single answers differ from the mean by the prompts that come while they are made and by how many others there are:
their time is taken for gamma distributed. Answers are counted by length when they end, for a short one may be slow by a single
prompt, and a long one is not. `python -m bench.response --itl` holds it against the simulator. Pure arithmetic. Read next:
`core/response.py`, docs/reference/planning.md.
"""

from math import ceil, erfc, exp, lgamma, log, log2, pi, sin, sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from sageserve.base.kernel import kernel
from sageserve.base.records import Floats
from sageserve.core.engine.timing import EngineRow
from sageserve.core.perf import curve_time, decoding_time, gain, sequences_time

LENGTHS: Final = 48
ANSWER_WIDTH: Final = 1 + LENGTHS
"""Columns of counted answers: those of one token, then by how many follow the first; the widest are of 65,000."""

PARTS: Final = 48
"""Equal parts of a load from none to 1 between which the share of slow answers is a straight line."""

DOUBLINGS: Final = 6
"""Numbers of instances for which it is worked out: 1, 2, 4, ... 32; straight lines between them, and no change beyond."""

_PER_DOUBLING: Final = 3.0  # columns: a length is known to 12 %
_ROUNDS: Final = 400  # until a series has settled; near full load it takes most
_DEEP: Final = 100  # of its fraction; at least one above the shape
_EXACT: Final = 1e-10
_NEAR: Final = 1e-4  # of a step, by which it may still change
_MANY: Final = 80.0  # sequences that are as good as normally distributed
_RARE: Final = 1e-9
_NEVER_US: Final = 1e12  # an iteration of an engine that is given more prompts than it can compute
_NORMAL: Final = 60.0  # shape of a gamma distribution from which Wilson's and Hilferty's approximation is exact enough


class DecodingLoad(Struct, frozen=True):
    """What decoding depends on, of all interactive requests of a model.

    Args:
        each_us: engine time of a request.
        prefill_us: of its prompt.
        variation: squared coefficient of variation of that.
        prompt: tokens, on average.
    """

    each_us: float
    prefill_us: float
    variation: float
    prompt: float


@kernel
def length_column(output: int) -> int:
    """The column that an answer of so many tokens is counted in, 0 to ANSWER_WIDTH - 1."""
    if output < 2:
        return 0
    return 1 + min(int(_PER_DOUBLING * log2(output - 1.0)), LENGTHS - 1)


@kernel
def note_answer(counted: Floats, output: int) -> None:
    """Count an answer; `counted` is float64[ANSWER_WIDTH], added to."""
    counted[length_column(output)] += 1.0


FOLLOWING: Final = np.concatenate(([0.0], 2.0 ** ((np.arange(LENGTHS) + 0.5) / _PER_DOUBLING)))
"""Tokens after the first that stand for each column: its geometric middle."""


@kernel
def gamma_tail(shape: float, x: float) -> float:
    """Chance that a gamma distributed number of this shape and of scale 1 is above x: its series, or its continued fraction."""
    if x <= 0.0:
        return 1.0
    if shape > _NORMAL:
        z = 3.0 * sqrt(shape) * ((x / shape) ** (1.0 / 3.0) - 1.0 + 1.0 / (9.0 * shape))
        return 0.5 * erfc(z / sqrt(2.0))
    front = exp(shape * log(x) - x - lgamma(shape))
    if x < shape + 1.0:
        term = total = 1.0 / shape
        for n in range(1, _ROUNDS):
            term *= x / (shape + n)
            total += term
            if term < _EXACT * total:
                break
        return max(1.0 - front * total, 0.0)
    tail = 0.0
    for n in range(_DEEP, 0, -1):  # Legendre's fraction from its far end
        tail = n * (n - shape) / (x + 2.0 * n + 1.0 - shape - tail)
    return min(front / (x + 1.0 - shape - tail), 1.0)


@kernel
def step_time(profile: EngineRow, sequences: float, context: float) -> float:
    """Microseconds of an iteration in which so many sequences decode, over so many tokens each, and nothing is prefilled."""
    return decoding_time(profile, sequences) + sequences * (profile["decode"] + profile["kv"] * context)


@kernel
def stall(profile: EngineRow, prompt: float, sequences: float) -> float:
    """Microseconds by which a prompt makes iterations longer in which so many sequences decode, or for which they pause."""
    todo = 0.5 * profile["attention"] * prompt * prompt
    room = prompt
    if profile["chunked"] != 0:
        beside = sequences * (1.0 + profile["drafted"]) if profile["mixed"] != 0 else 0.0
        room = max(profile["max_batched"] - beside, 1.0)
    pieces = max(ceil(prompt / room), 1.0)
    last = prompt - (pieces - 1.0) * room
    if profile["mixed"] == 0:
        return todo + (pieces - 1.0) * curve_time(profile, room) + curve_time(profile, last) + pieces * profile["eager"]
    base = sequences_time(profile, 0.0, sequences)
    todo += sequences_time(profile, last, sequences) - base + pieces * profile["eager"]
    if pieces > 1.0:
        todo += (pieces - 1.0) * (sequences_time(profile, room, sequences) - base)
    return max(todo, 0.0)


@kernel
def found(others: float, servers: float) -> float:
    """Sequences that a request finds where there is most room, of `others` on average at each of so many instances.

    All of them are a Poisson number N, spread evenly: the mean of floor(N / servers). Of many it is that of a normal number,
    whose part behind the comma has a Fourier series.
    """
    mean, total = others * servers, 0.0
    if mean > _MANY:
        part = 0.5
        for q in range(1, 4):
            part -= sin(2.0 * pi * q * others) / (pi * q) * exp(-2.0 * pi * pi * q * q * others / servers)
        return others - part * (1.0 - 1.0 / servers)
    chance, k, most = exp(-mean), 0, int(servers)
    left = 1.0 - chance
    while left > _RARE:
        k += 1
        if k % most == 0:
            total += left  # the chance of k and more
        chance *= mean / k
        left -= chance
    return total


@kernel
def settle(profile: EngineRow, load: float, servers: float, asked: Floats, into: Floats) -> None:
    """Where iterations settle at a load.

    Args:
        profile: of the engine.
        load: share of its time that is asked for.
        servers: instances that share the requests, each of which goes where there is most room.
        asked: `DecodingLoad`, and iterations of an answer on average.
        into: float64[6], filled in: microseconds of an iteration, of one of an idle engine, sequences, microseconds by which a
            prompt spreads the times of answers, such prompts per microsecond, microseconds that one sequence more adds.
    """
    ranks, steps = profile["ranks"], asked[4]
    rate = load / asked[0] / ranks
    context = asked[3] + 0.5 * steps * gain(profile)
    most = max(min(float(profile["max_sequences"]), profile["kv_tokens"] / context), 1.0)
    heavy = asked[3] * (1.0 + asked[2])  # a token is of a prompt as long as this
    alone = heavy * profile["whole"] + 0.5 * profile["attention"] * heavy * heavy
    idle = step = step_time(profile, 1.0, context)
    sequences, held, prompts, left = 1.0, 0.0, 0.0, 1.0
    for _ in range(_ROUNDS):
        others = found(rate * steps * step, servers * ranks)
        sequences = min(1.0 + others, most)
        held = stall(profile, heavy, sequences) / alone * asked[1] * ranks
        others += rate * held / servers  # whose prompt is being computed decodes when that of the next one is
        prompts = others / (steps * step)  # whoever finds another there makes it wait
        if profile["lockstep"] != 0:
            prompts += rate * (ranks - 1)
        left = 1.0 - prompts * held
        if left < 1e-3:
            step = _NEVER_US
            break
        before, step = step, 0.5 * (step + step_time(profile, sequences, context) / left)
        if abs(step - before) < _NEAR * before:
            break
    one_more = step_time(profile, sequences + 1.0, context) - step_time(profile, sequences, context)
    into[0], into[1], into[2] = step, idle, sequences
    into[3], into[4], into[5] = held * max(left, 1e-3) ** (-0.5 / servers), prompts, one_more / max(left, 1e-3)


@kernel
def slow_chance(found: Floats, servers: float, asked: Floats, steps: float, spare: float) -> float:
    """Chance that an answer is slower than promised.

    Args:
        found: as `settle` fills it in.
        servers: likewise.
        asked: likewise.
        steps: iterations of this one.
        spare: microseconds that it may take more than at an idle engine; not above 0: no engine is fast enough.
    """
    more = steps * (found[0] - found[1])
    if spare <= 0.0 or more <= 0.0:
        return 0.0
    lives = steps / asked[4]
    alike = 2.0 * (lives - 1.0 + exp(-lives)) / (lives * lives)  # the same others are there for as long as an answer takes
    spread = found[4] * steps * found[0] * found[3] * found[3] * (1.0 + asked[2])
    spread += (steps * found[5]) ** 2 * (found[2] - 1.0) / servers * alike
    if spread <= 0.0:
        return 1.0 if more > spare else 0.0
    return gamma_tail(more * more / spread, spare * more / spread)


@kernel
def _slow(profile: EngineRow, asked: Floats, following: Floats, shares: Floats, gaps: Floats, into: Floats) -> None:
    """`slow_by_load`; shares are float64[tiers, ANSWER_WIDTH], of all answers, and `into` is float64[doublings, PARTS + 1]."""
    found = np.zeros(6)
    made = gain(profile)
    for row in range(into.shape[0]):
        servers = 2.0**row
        for part in range(1, into.shape[1]):
            settle(profile, part / (into.shape[1] - 1.0), servers, asked, found)
            for k in range(len(gaps)):
                for n in range(1, len(following)):
                    if gaps[k] > 0.0 and shares[k, n] > 0.0:
                        steps = following[n] / made
                        spare = following[n] * gaps[k] - steps * found[1]
                        into[row, part] += shares[k, n] * slow_chance(found, servers, asked, steps, spare)
            into[row, part] = max(into[row, part], into[row, part - 1])


def guessed_answers(tiers: list[int], shape: tuple[int, ...], mean: float) -> Floats:
    """float64[tiers, ANSWER_WIDTH]: as many answers of each of some tiers, of lengths that are exponentially distributed."""
    edges = np.concatenate(([0.0, 1.0], 2.0 ** (np.arange(1, LENGTHS) / _PER_DOUBLING), [np.inf]))
    found = np.zeros(shape)
    found[tiers] = -np.diff(np.exp(-edges / mean))
    return found


def slow_by_load(profile: EngineRow, asked: DecodingLoad, answers: Floats, gaps: Floats) -> tuple[float, ...]:
    """Share of answers that are slower than promised though an idle engine would be fast enough, at loads in equal parts.

    With d(b) for an iteration of b sequences and s for what a prompt adds to it, iterations settle at t = d(b) / (1 - r s): b
    follows from how many requests there are in the time of an answer, r are the prompts of those that come where others are.
    An answer of k iterations takes k t on average, with a variance of r k t s² (1 + cv²) / (1 - r s)^(1/n) for prompts (those
    that come while others wait; a router evens that out) and (k d')² (b - 1) / n for others, of which those that come and go in
    its time count less.

    Args:
        profile: PROFILE row of the engine.
        asked: of what.
        answers: float64[tiers, ANSWER_WIDTH], counted.
        gaps: float64[tiers], microseconds that a token after the first may take; 0: nothing is promised.

    Returns:
        PARTS + 1 shares, at loads from 0 to 1, rising, for each of DOUBLINGS numbers of instances; none where nothing is promised
        or was answered.
    """
    total = float(answers.sum())
    mean = float((answers * FOLLOWING).sum()) / max(total, 1e-9)
    if mean <= 0.0 or not (gaps > 0).any():
        return ()
    numbers = np.array([asked.each_us, asked.prefill_us, asked.variation, asked.prompt, mean / gain(profile)])
    into = np.zeros((DOUBLINGS, PARTS + 1))
    _slow(profile, numbers, FOLLOWING, answers / total, gaps, into)
    return tuple(into.ravel().tolist())
