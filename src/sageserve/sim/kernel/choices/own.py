"""Rules of the user's at work in the loop: the numbers of a request and of a choice are written down, and the rule is called.

The numbers are those that `live/gateway/own_choices.py` writes down; the lowest score wins, the first of equals. A rule that
gives no number is not asked again: the built-in one decides, and the simulation ends when it next stops. Decides nothing itself.
Read next: `sim/kernel/rows/own.py`; docs/how-to/own-routers.md for what each number is.
"""

from math import isfinite
from typing import Any

from numpy.typing import NDArray

from sageserve.base.compiled_rule import call_rule
from sageserve.base.kernel import Rec, kernel
from sageserve.core.engine.timing import WEIGHT_ONE
from sageserve.core.own_rules import PLACES
from sageserve.core.perf import allowed
from sageserve.core.route import CLOSED, expected, expected_busy, pick_instance
from sageserve.sim.kernel.choices.regions import is_ready
from sageserve.sim.kernel.state import (
    view_endpoints,
    view_engines,
    view_f8,
    view_i8,
    view_profiles,
    view_requests,
    view_tiers,
)

INFINITE = float("inf")


@kernel
def note_asked(w: Rec, q: int) -> None:
    """Write down what every rule is told of request `q`."""
    numbers = view_f8(w["at_numbers"], PLACES)
    r = view_requests(w["at_requests"], w["rows"])[q]
    tier = view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]
    numbers[0] = r["prompt"]
    numbers[1] = tier["rank"]
    numbers[2] = tier["batch"]


@kernel
def score_instances(w: Rec, e: int, q: int) -> bool:
    """Have the instance rule score the open instances of endpoint `e` for request `q`; False where it failed."""
    slots, twigs = w["slots"], w["twigs"]
    begin = e * 2 * twigs + twigs
    tree = view_i8(w["at_outstanding"], w["endpoint_count"] * 2 * twigs)
    found = view_i8(w["at_found"], slots)
    engines = view_engines(w["at_engines"], w["units"])
    profiles = view_profiles(w["at_profiles"], w["profile_count"])
    numbers = view_f8(w["at_numbers"], PLACES)
    scores = view_f8(w["at_scores"], slots)
    note_asked(w, q)
    for k in range(slots):
        scores[k] = INFINITE
        if tree[begin + k] == CLOSED:
            continue
        engine = engines[e * slots + k]
        profile = profiles[engine["profile"]]
        numbers[3] = tree[begin + k] / WEIGHT_ONE
        numbers[4] = engine["in_flight"]
        numbers[5] = engine["unfilled"]
        numbers[6] = found[k] if w["own_finds"] != 0 else 0
        numbers[7] = profile["weight"] / WEIGHT_ONE
        numbers[8] = profile["ranks"] * profile["max_sequences"]
        numbers[9] = profile["ranks"] * profile["kv_tokens"]
        numbers[10] = k
        scores[k] = call_rule(w["own_instance"], w["at_numbers"])
        if not isfinite(scores[k]):
            w["own_failed"] = 1
            return False
    return True


@kernel
def best_instance(w: Rec, e: int) -> int:
    """The instance of endpoint `e` with the lowest score."""
    slots = w["slots"]
    return int(e * slots + pick_instance(view_f8(w["at_scores"], slots), 0, slots))


@kernel
def best_endpoint(w: Rec, q: int, walk: NDArray[Any], elapsed: int, both: bool) -> int:
    """The ready endpoint of a walk with the lowest score of the region rule; -1: none is ready, or the rule failed."""
    endpoints = view_endpoints(w["at_endpoints"], w["endpoint_count"])
    regions = w["regions"]
    r = view_requests(w["at_requests"], w["rows"])[q]
    numbers = view_f8(w["at_numbers"], PLACES)
    note_asked(w, q)
    best = -1
    least = 0.0
    for e in walk:
        if e < 0:
            break
        endpoint = endpoints[e]
        if not is_ready(w, e, both):
            continue
        numbers[3] = expected(w, endpoint, elapsed)
        numbers[4] = expected_busy(w, endpoint, elapsed)
        numbers[5] = endpoint["kv"]
        numbers[6] = max(endpoint["backlog"], 0.0)
        numbers[7] = endpoint["open"]
        numbers[8] = view_i8(w["at_rtt"], regions * regions)[r["region"] * regions + e // (w["models"] * w["roles"])]
        score = call_rule(w["own_region"], w["at_numbers"])
        if not isfinite(score):
            w["own_failed"] = 2
            return -1
        if best < 0 or score < least:
            best = int(e)
            least = score
    return best


@kernel
def note_admission(w: Rec, e: int, q: int, wait: float, service: float) -> None:
    """Write down what the admission rule is told of request `q` at endpoint `e`."""
    endpoint = view_endpoints(w["at_endpoints"], w["endpoint_count"])[e]
    r = view_requests(w["at_requests"], w["rows"])[q]
    tier = view_tiers(w["at_tier_rows"], w["tiers"])[r["tier"]]
    numbers = view_f8(w["at_numbers"], PLACES)
    note_asked(w, q)
    numbers[3] = wait
    numbers[5] = endpoint["placed"] - endpoint["finished"]
    numbers[7] = endpoint["open"]
    numbers[8] = service
    numbers[9] = allowed(tier["patience"], tier["growth"], r["prompt"])


@kernel
def own_says(w: Rec, limit: float, most: int) -> bool:
    """Whether the admission rule lets a request in, of which everything but its limits is written down."""
    numbers = view_f8(w["at_numbers"], PLACES)
    numbers[4] = limit
    numbers[6] = most
    said = call_rule(w["own_admission"], w["at_numbers"])
    if not isfinite(said):
        w["own_failed"] = 3
        return True
    return bool(said != 0.0)
