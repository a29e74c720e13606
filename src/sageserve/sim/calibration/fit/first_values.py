"""PlainCosts read off a log without playing it: what answers took, beside what was computed meanwhile.

From its first token to its last a request sees one iteration per token. How many tokens others made then, over how much
context, and which prompts were filled, follows from everybody's first and last tokens, taken to be evenly spaced. That is
only about right, but it has no wrong valleys: a place to begin. Read next: `descent.py`, which goes on from there.
"""

from typing import Final

import numpy as np

from sageserve.base.records import Bools, Floats, Ints
from sageserve.data.measured.runs import MeasuredRequests
from sageserve.sim.calibration.coefficients import PlainCosts
from sageserve.sim.calibration.search import nonnegative

ROWS: Final = 400  # answers that are looked at, at most: each is held against all requests
ROUNDS: Final = 15  # of reweighting, so that errors count as absolute values
ZERO: Final = 0.1  # of the median error: errors below it count as squares
QUICK: Final = 10  # per cent: the requests whose first token took least beyond its prompt did not wait


def first_costs(requests: MeasuredRequests, seen: Bools) -> PlainCosts:
    """What an iteration, a token and so on seem to take, none below zero.

    Args:
        requests: n rows.
        seen: bool[n], whose times may be looked at, and who alone is taken to be there; one with several tokens at least.
    """
    requests = requests.rows(seen)
    some = np.flatnonzero(requests.output > 1)
    some = some[np.linspace(0, len(some) - 1, min(ROWS, len(some))).astype(np.int64)]
    took = (requests.e2e - requests.ttft)[some].astype(np.float64)
    found = _absolute(_meanwhile(requests, some) / np.maximum(took, 1.0)[:, None])
    iteration, prompt, decoding, kv, attention = (float(cost) for cost in found)
    computed, attended = _prompts(requests)
    alone = iteration + prompt * computed + attention * attended
    once = max(float(np.percentile(requests.ttft - alone, QUICK)), 0.0)
    return PlainCosts(iteration, prompt, decoding, kv, attention, once)


def _prompts(requests: MeasuredRequests) -> tuple[Ints, Floats]:
    """int64[n], float64[n]: tokens of each prompt that are computed, and their attention sum."""
    found = np.zeros(len(requests), np.int64) if requests.cached is None else requests.cached
    computed = np.maximum(requests.prompt - found, 1)
    return computed, computed * (requests.prompt + found) / 2.0


def _meanwhile(requests: MeasuredRequests, some: Ints) -> Floats:
    """float64[s, 5]: iterations, prompt, decoded and KV tokens, and attention between first and last tokens of some requests."""
    first, last = (requests.arrival + requests.ttft).astype(np.float64), (requests.arrival + requests.e2e).astype(np.float64)
    begin, end, span = first[some, None], last[some, None], np.maximum(last - first, 1.0)
    low, high = np.clip((begin - first) / span, 0.0, 1.0), np.clip((end - first) / span, 0.0, 1.0)
    steps = requests.output - 1
    made = steps * (high - low)
    context = requests.prompt + steps * (high + low) / 2
    filled = (first > begin) & (first <= end)
    computed, attended = _prompts(requests)
    columns = (steps[some], filled @ computed, made.sum(axis=1), (made * context).sum(axis=1), filled @ attended)
    return np.column_stack(columns).astype(np.float64)


def _absolute(shares: Floats) -> Floats:
    """float64[k] >= 0 with the least sum of |shares @ costs - 1|."""
    trust = np.ones(len(shares))
    found = np.zeros(shares.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(trust)
        found = nonnegative(shares * root[:, None], root)
        off = np.abs(shares @ found - 1.0)
        trust = 1.0 / np.maximum(off, ZERO * float(np.median(off)) + 1e-9)
    return found
