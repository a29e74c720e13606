"""The memory of a simulated world: one record of addresses (WORLD) and the arrays behind it.

`Setup` says what to simulate in plain arrays, `World` allocates. Nothing here decides anything; the compiled functions in
`queues.py`, `admission.py`, `batching.py`, `arrive.py` and `engine.py` do. The rules they follow are in docs/reference/kernel.md.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import Infeasible
from sageserve.base.kernel import viewer
from sageserve.base.records import REQUEST, UNSET, Trace, cached_tokens
from sageserve.base.sessions import Turns
from sageserve.base.units import NEVER, Micros
from sageserve.core.columns import ENDPOINT
from sageserve.core.feed import DIRECT
from sageserve.core.handover import Handover
from sageserve.core.order import TIER, promised_us
from sageserve.core.own_rules import NO_RULES, OwnRules
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.perf import PROFILE
from sageserve.core.response import MIX_WIDTH
from sageserve.core.route import CLOSED, LEAST_WORK
from sageserve.sim.kernel.prefixes.memory import CACHE, NODE, PrefixMemory
from sageserve.sim.kernel.prefixes.tree import PREFIX, SEGMENT, Prefixes
from sageserve.sim.kernel.rows.adapters import ADAPTER_ARRAYS, ADAPTER_SIZES, AdapterMemory, Adapters
from sageserve.sim.kernel.rows.blocks import BLOCK
from sageserve.sim.kernel.rows.engines import ENGINE
from sageserve.sim.kernel.rows.handover import HANDOVER_ARRAYS, HANDOVER_COUNTS, handover_arrays, refuse_talk
from sageserve.sim.kernel.rows.own import OWN_ARRAYS, OWN_SIZES, OwnMemory
from sageserve.sim.kernel.rows.shares import SHARE_ARRAYS, SHARE_SIZES, ShareMemory, Sharers
from sageserve.sim.kernel.rows.turns import turn_arrays

# where a request is (column `state` of REQUEST); PROMOTED is a flag on top
FUTURE: Final = 0
HELD: Final = 1  # batch queue or door
WAITING: Final = 2  # queue of an instance
PREFILLING: Final = 3
RUNNING: Final = 4
DONE: Final = 5
REFUSED: Final = 6
SHED: Final = 7  # turned away, or given up in the batch queue
SENDING: Final = 8  # prefilled, and its KV cache is on the way to an instance that decodes
PROMOTED: Final = 64
PLACE: Final = 63  # mask of the states above

# what an engine does (column `phase` of ENGINE)
SHUT: Final = 0
IDLE: Final = 1
DECODE: Final = 2
PREFILL: Final = 3

LINEAR_SLOTS: Final = 32  # up to here a linear scan beats a tree of outstanding tokens

_SIZES: Final = ("rows", "regions", "models", "roles", "tiers", "slots", "instances", "units", "endpoint_count", "profile_count")
_SHAPES: Final = ("walk_length", "leaves", "twigs", "linear", "batch_size", "refused", "shed", "sleepers", "asked", "farthest")
_POLICIES: Final = (
    "order",
    "route",
    "signal",
    "feed",
    "scrape",
    "promote_after",
    "admission",
    "admission_queued",
    "instance",
    "adapter_tokens",
)
_PROGRESS: Final = ("next_row", "released", "now", "last_scrape", "next_scrape", "drained_count", "events", "preemptions")
_LOOP: Final = ("loop", "alone", "next_turn", "turns_waiting", "turns_arrived", "never_arrived", "block_rows", "block_count")
_CACHE: Final = ("paced", "caches", "block_tokens", "segment_count", "node_rows", "node_count", "node_free", "bucket_count")
_FLOATS: Final = ("overlap", "threshold", "half_life", "safety", "admission_wait")
_FLEET: Final = ("requests", "engines", "endpoints", "profiles", "tier_rows", "walk", "context", "outstanding", "drained")
_QUEUES: Final = ("heads", "tails", "finish", "times")
_COUNTERS: Final = ("mixes", "answers", "promises", "guess", "output_mean", "made_tokens", "reference")
_DEMAND: Final = ("demand_tokens", "demand_requests", "demand_work", "held", "sleeps")
_TURNS: Final = ("before", "after", "pause", "stated", "turn_heap", "opened", "rtt", "keeps")
_PREFIX: Final = ("prefixes", "segments", "nodes", "buckets", "caches", "found", "weights")
_OPTIONAL: Final = (*OWN_SIZES, *HANDOVER_COUNTS, *SHARE_SIZES, *ADAPTER_SIZES)
_MORE: Final = (*OWN_ARRAYS, *HANDOVER_ARRAYS, *SHARE_ARRAYS, *ADAPTER_ARRAYS)
_ARRAYS: Final = (*_FLEET, *_QUEUES, *_COUNTERS, *_DEMAND, *_TURNS, *_PREFIX, *_MORE, "blocks")
WORLD: Final = np.dtype(
    [(name, "i8") for name in (*_SIZES, *_SHAPES, *_POLICIES, *_PROGRESS, *_LOOP, *_CACHE, *_OPTIONAL)]
    + [(name, "f8") for name in _FLOATS]
    + [("at_" + name, "i8") for name in _ARRAYS],
    align=True,
)

view_world = viewer(WORLD)
view_requests = viewer(REQUEST)
view_engines = viewer(ENGINE)
view_endpoints = viewer(ENDPOINT)
view_profiles = viewer(PROFILE)
view_tiers = viewer(TIER)
view_blocks = viewer(BLOCK)
view_prefixes = viewer(PREFIX)
view_segments = viewer(SEGMENT)
view_nodes = viewer(NODE)
view_caches = viewer(CACHE)
view_i8 = viewer(np.dtype("i8"))
view_i4 = viewer(np.dtype("i4"))
view_f8 = viewer(np.dtype("f8"))
span_i8, span_i4, span_f8 = (viewer(np.dtype(kind), counted=True) for kind in ("i8", "i4", "f8"))  # what is sliced or counted


@dataclass(frozen=True, slots=True)
class Setup:
    """What to simulate, in codes and plain arrays; the words are those of docs/reference/kernel.md.

    Args:
        regions: number of regions.
        models: number of models.
        roles: number of roles.
        slots: instance slots per endpoint.
        profiles: PROFILE rows.
        slot_profile: int32[endpoints * slots], profile of each slot; -1 for a slot that is never used.
        context: int64[models], largest prompt + output.
        tiers: TIER rows.
        walk: int32[regions, models, tiers, endpoints tried], padded with -1.
        feeds: bool[endpoints], serves batch work from the queue.
        sleeps: by endpoint, may be closed wholly, and is opened again when requests wait; empty: none is.
        order: FCFS, EDF, PF or DPA.
        route: THRESHOLD, NEAREST, LEAST or QUICKEST.
        threshold: utilisation below which a nearer region takes the request.
        signal: LOAD, KV or BUSY.
        scrape: microseconds between scrapes.
        half_life: microseconds over which the offered rate is averaged.
        feed: STEPS, FILL or DIRECT.
        two_below: utilisation below which two jobs are fed, until the controller says otherwise.
        one_below: utilisation below which one job is fed, likewise.
        promote_after: age at which batch work is promoted, microseconds.
        safety: promoted when slack < safety * service time.
        output_guess: tokens, the mean output length assumed before any was seen.
        prefix_hits: share of a prompt found in the prefix cache, by model, where a trace does not say; empty: nothing.
        block_rows: blocks to log; 0: none. Those beyond are counted and not kept.
        caches: whether engines have a prefix cache, by model; empty: all do. Without one nothing that they served is found again.
        rtt: int64[regions, regions], microseconds that an answer travels, which whoever has the next turn waits for; empty: none.
        admission: requests whose promise a wait would break are turned away; false: everybody waits (paper).
        admission_wait: the longest predicted wait, in units of the tier's patience.
        admission_queued: most requests in flight at an endpoint, in units of the sequences it can run together.
        instance: LEAST_WORK or AFFINITY.
        overlap: with AFFINITY: what a token that is found in a cache counts for, in outstanding tokens.
        adapter_tokens: with AFFINITY: what an adapter that is loaded counts for, likewise.
        clients: closed loop: so many rows arrive by themselves, each that is done sends the next; 0: all arrive as they say.
        rules: of the user's; each takes the place of a built-in one.
        believed: PROFILE rows that are only believed in; each has its true one so many rows on, as `slot_profile` says.
        handover: models whose prompts are prefilled by instances of role 0 and decoded by those of role 1; None: none is.
    """

    regions: int
    models: int
    roles: int
    slots: int
    profiles: NDArray[Any]
    slot_profile: NDArray[np.int32]
    context: NDArray[np.int64]
    tiers: NDArray[Any]
    walk: NDArray[np.int32]
    feeds: NDArray[np.bool_]
    order: int
    route: int
    threshold: float
    signal: int
    scrape: Micros
    half_life: float
    feed: int
    two_below: float
    one_below: float
    promote_after: Micros
    safety: float
    output_guess: float
    prefix_hits: tuple[float, ...] = ()
    block_rows: int = 0
    caches: tuple[bool, ...] = ()
    rtt: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    admission: bool = False
    admission_wait: float = 1.0
    admission_queued: int = 4
    instance: int = LEAST_WORK
    overlap: float = 1.0
    adapter_tokens: int = 0
    clients: int = 0
    rules: OwnRules = NO_RULES
    believed: int = 0
    sleeps: tuple[bool, ...] = ()
    handover: Handover | None = None

    @property
    def endpoints(self) -> int:
        """Number of endpoints: regions x models x roles."""
        return self.regions * self.models * self.roles


def request_rows(trace: Trace, setup: Setup, turns: Turns | None = None) -> NDArray[Any]:
    """REQUEST rows of a trace; outputs are clipped to the model's context, deadlines and cached tokens are filled in.

    In a closed loop they are in the order of `turns`; those that wait for an answer have no arrival, and a deadline that counts
    from it.
    """
    if turns is not None:
        trace = replace(trace, blocks=None).take(turns.order)
    rows = np.zeros(len(trace), REQUEST)
    columns = {name: getattr(trace, name) for name in ("arrival", "prompt", "model", "region", "tier")}
    if setup.clients:
        columns["arrival"] = np.where(np.arange(len(trace)) < setup.clients, trace.arrival, NEVER)
    columns["cached"] = cached_tokens(trace, setup.prefix_hits)
    columns["output"] = np.minimum(trace.output, np.maximum(setup.context[trace.model] - trace.prompt, 1))
    due = columns["arrival"] + promised_us(setup.tiers, trace.tier, trace.prompt)
    columns["deadline"] = due if trace.deadline is None else np.where(trace.deadline == UNSET, due, trace.deadline)
    columns |= dict.fromkeys(("first", "finish", "next", "finish_step", "instance"), np.broadcast_to(UNSET, len(trace)))
    for part in (slice(first, first + 8192) for first in range(0, len(rows), 8192)):  # stays in the processor's cache
        for name, column in columns.items():
            rows[name][part] = column[part]
    if turns is not None:
        waiting = rows[turns.first :]
        waiting["deadline"] -= waiting["arrival"]
        waiting["arrival"] = UNSET
    return rows


def reference_profiles(setup: Setup) -> NDArray[np.int32]:
    """int32[models]: the fastest profile that any slot of a model has; demand is measured in its time."""
    reference = np.zeros(setup.models, np.int32)
    by_model = setup.slot_profile.reshape(setup.regions, setup.models, -1)
    for model in range(setup.models):
        if len(used := np.unique(by_model[:, model][by_model[:, model] >= 0])):
            reference[model] = used[np.argmin(setup.profiles["weight"][used])] - setup.believed
    return reference


class World:
    """Owns the arrays of one simulated world; `address` is what compiled code takes.

    Args:
        setup: what to simulate.
        requests: REQUEST rows, sorted by arrival; written to by the simulation.
        turns: which of them wait for answers, and come after all others; None: nobody does.
        prefixes: hashes of their prompts' blocks; None: what they find in a cache is as stated.
        sharers: tenants that share; None: nobody does.
        adapters: that requests ask for; None: nobody does.

    Raises:
        Infeasible: an engine whose token budget does not exceed its largest batch.
        ConfigError: a rule of the user's cannot be compiled.
    """

    def __init__(
        self,
        setup: Setup,
        requests: NDArray[Any],
        turns: Turns | None,
        prefixes: Prefixes | None,
        sharers: Sharers | None,
        adapters: Adapters | None = None,
    ) -> None:
        rows = setup.profiles
        if bool((rows["max_batched"] <= rows["max_sequences"] * (1 + rows["mixed"] * rows["drafted"])).any()):
            raise Infeasible(
                "an engine's max_batched_tokens must exceed its max_sequences and their drafts, or no room is left for prompts",
                hint="raise max_batched_tokens or lower max_sequences in the profile",
            )
        if turns is not None or prefixes is not None:
            refuse_talk(setup.handover, setup.caches)
        self.setup, self.requests = setup, requests
        engines = _engines(setup)
        kv_tokens = setup.profiles["kv_tokens"][engines["profile"]]
        memory = PrefixMemory(kv_tokens, requests, prefixes, setup.caches)
        self.own = OwnMemory(setup.rules, setup.slots)
        shares = ShareMemory(sharers, requests, (setup.tiers["batch"] != 0) & (setup.feed != DIRECT), setup.models)
        slots = AdapterMemory(adapters, setup.profiles, engines, lanes=len(setup.tiers) + 1, rows=len(requests))
        arrays = self._allocate(setup, requests) | memory.arrays | self.own.arrays | shares.arrays | slots.arrays
        arrays |= turn_arrays(turns, requests["cached"], setup.endpoints * setup.slots)
        arrays |= handover_arrays(setup.handover, arrays["engines"], setup.roles, len(requests))
        self.arrays, self.engines, self.endpoints = arrays, arrays["engines"], arrays["endpoints"]
        self._record = np.zeros(1, WORLD)
        self.record = self._record[0]
        self.address = self._record.ctypes.data
        for name in ("regions", "models", "roles", "slots", *_POLICIES, *_FLOATS):
            self.record[name] = getattr(setup, name)
        sizes = self._sizes(setup, requests, len(kv_tokens)) | memory.sizes | self.own.sizes | shares.sizes | slots.sizes
        for name, value in sizes.items():
            self.record[name] = value
        for name in _ARRAYS:
            self.record["at_" + name] = arrays[name].ctypes.data
        self.record["loop"] = int(turns is not None)
        self.record["alone"] = len(requests) if turns is None else turns.first
        self.record["next_turn"] = NEVER

    def check_rules(self) -> None:
        """Raise what a rule of the user's raised, if one did."""
        if self.record["own_failed"]:
            self.own.check(int(self.record["own_failed"]))

    @staticmethod
    def _sizes(setup: Setup, requests: NDArray[Any], units: int) -> dict[str, int]:
        return {
            "rows": len(requests),
            "released": min(setup.clients, len(requests)) or len(requests),
            "tiers": len(setup.tiers),
            "instances": setup.endpoints * setup.slots,
            "units": units,
            "endpoint_count": setup.endpoints,
            "profile_count": len(setup.profiles),
            "block_rows": setup.block_rows,
            "walk_length": setup.walk.shape[-1],
            "leaves": _power_of_two(units if setup.handover is None else 2 * units),  # and what lands of each
            "hands": int(setup.handover is not None),
            "twigs": _power_of_two(setup.slots),
            "linear": int(setup.slots <= LINEAR_SLOTS),
            "batch_size": int(setup.profiles["max_sequences"].max()),
            "sleepers": int(any(setup.sleeps)),
            "farthest": int(setup.rtt.max(initial=0)),
            "paced": int(setup.tiers["gap"].any()),
        }

    @staticmethod
    def _allocate(setup: Setup, requests: NDArray[Any]) -> dict[str, NDArray[Any]]:
        endpoints, tiers = setup.endpoints, len(setup.tiers)
        cells = setup.regions * setup.models * tiers
        sums = cells, setup.models * MIX_WIDTH, setup.models * tiers * ANSWER_WIDTH * int(setup.tiers["gap"].any())
        engines = _engines(setup)
        rows = np.zeros(endpoints, ENDPOINT)
        rows["model"] = np.arange(endpoints) // setup.roles % setup.models
        rows["feeds"] = setup.feeds
        rows["one_below"], rows["two_below"] = setup.one_below, setup.two_below
        return {
            "requests": requests,
            "engines": engines,
            "endpoints": rows,
            "profiles": np.ascontiguousarray(setup.profiles),
            "tier_rows": np.ascontiguousarray(setup.tiers),
            "heads": np.full(len(engines) * (tiers + 1), UNSET, np.int32),
            "tails": np.full(len(engines) * (tiers + 1), UNSET, np.int32),
            "finish": np.zeros(len(engines) * 2 * int(setup.profiles["max_sequences"].max()), np.int64),
            "times": np.full(2 * _power_of_two(len(engines) * (1 if setup.handover is None else 2)), NEVER, np.int64),
            "outstanding": np.full(endpoints * 2 * _power_of_two(setup.slots), CLOSED, np.int64),
            "walk": np.ascontiguousarray(setup.walk, np.int32).ravel(),
            "context": np.ascontiguousarray(setup.context, np.int64),
            "sleeps": np.array(setup.sleeps or (False,) * endpoints, np.int32),
            "guess": np.full(setup.models, int(setup.output_guess + 0.5), np.int64),
            "output_mean": np.full(setup.models * tiers, setup.output_guess),
            **{name: np.zeros(cells, np.int64) for name in ("demand_tokens", "demand_requests", "made_tokens", "held")},
            **{name: np.zeros(size) for name, size in zip(("demand_work", "mixes", "answers"), sums, strict=True)},
            "reference": reference_profiles(setup),
            "promises": np.zeros(2 * cells, np.int64),
            "drained": np.full(endpoints * setup.slots, UNSET, np.int32),
            "blocks": np.zeros(max(setup.block_rows, 1), BLOCK),
            "found": np.zeros(setup.slots, np.int64),
            "keeps": np.array(setup.caches or (True,) * setup.models, np.int32),
            "rtt": np.ascontiguousarray(setup.rtt if setup.rtt.size else np.zeros(setup.regions**2), np.int64).ravel(),
            "weights": setup.profiles["weight"][setup.slot_profile].astype(np.int64),
        }


def _engines(setup: Setup) -> NDArray[Any]:
    """ENGINE rows, nothing in them; a slot that is never used has one rank."""
    ranks = np.where(setup.slot_profile >= 0, setup.profiles["ranks"][setup.slot_profile], 1).astype(np.int64)
    n = len(ranks)
    rows = np.zeros(int(ranks.sum()), ENGINE)
    rows["head"] = np.concatenate((np.arange(n), np.repeat(np.arange(n), ranks - 1)))
    rows["endpoint"] = rows["head"] // setup.slots
    rows["model"] = rows["endpoint"] // setup.roles % setup.models
    rows["profile"] = setup.slot_profile[rows["head"]]
    rows["ranks"], rows["others"] = ranks[rows["head"]], (n + np.cumsum(ranks - 1) - (ranks - 1))[rows["head"]]
    rows["lockstep"] = (setup.profiles["lockstep"][rows["profile"]] != 0) & (rows["ranks"] > 1)
    rows["phase"][n:] = IDLE  # whether an instance is shut, its own row says
    for name in ("batch", "partial", "latest", "lost"):
        rows[name] = UNSET
    return rows


def _power_of_two(n: int) -> int:
    return 1 << max(0, (n - 1).bit_length())
