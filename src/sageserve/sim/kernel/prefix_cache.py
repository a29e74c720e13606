"""The prefix cache of an engine: which blocks it holds, who uses them, and which go when memory is needed.

Each rank of an instance has one of its own; where this module says instance, it is the rank (most instances have one).

Blocks of running requests are held, once for all who share them. Blocks that nobody uses stay in the memory that is left, and go
in the order in which they were let go, the last of a prompt first; so a block never goes before those that follow it. A node is a
segment of the tree (`prefixes/tree.py`) at an instance, of which the first `resident` blocks are there. The rules are stated in
docs/reference/kernel.md, "Block hashes". Read next: `admission.py`, `batching.py` and `turns.py`, the callers.
"""

from typing import Any, Final

from numpy.typing import NDArray

from sageserve.base.kernel import Rec, kernel
from sageserve.core.engine import rules
from sageserve.sim.kernel.prefixes.tree import UNHASHED
from sageserve.sim.kernel.state import (
    view_caches,
    view_engines,
    view_i4,
    view_nodes,
    view_prefixes,
    view_profiles,
    view_requests,
    view_segments,
)

NOBODY: Final = -1
ALL: Final = 2**31 - 1

found_in_blocks = kernel(rules.found_in_blocks)


@kernel
def is_hashed(w: Rec, q: int) -> bool:
    """Whether what request `q` finds depends on what its instance holds."""
    return bool(w["caches"] != 0 and view_prefixes(w["at_prefixes"], w["rows"])[q]["leaf"] != UNHASHED)


@kernel
def bucket_of(w: Rec, i: int, s: int) -> int:
    """Where the chain of nodes begins in which segment `s` of instance `i` would be."""
    key = (int(s) * 2654435761 + int(i) * 40503) & 0x7FFFFFFFFFFFFFFF
    return (key ^ (key >> 21)) & (w["bucket_count"] - 1)


@kernel
def find_node(w: Rec, i: int, s: int) -> int:
    """The node of segment `s` at instance `i`; NOBODY when nothing of it is there."""
    segment = view_segments(w["at_segments"], w["segment_count"])[s]
    if segment["first_at"] == i:
        return int(segment["first"])
    return search_node(w, i, s) if segment["others"] > 0 else NOBODY


@kernel
def search_node(w: Rec, i: int, s: int) -> int:
    """The same, of segments that several instances have."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    n = view_i4(w["at_buckets"], w["bucket_count"])[bucket_of(w, i, s)] - 1
    while n >= 0 and (nodes[n]["segment"] != s or nodes[n]["instance"] != i):
        n = nodes[n]["chain"]
    return int(n)


@kernel
def look_up(w: Rec, i: int, q: int) -> tuple[int, int]:
    """Blocks from the beginning of a hashed prompt that instance `i` has, and how many of them others hold."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segments = view_segments(w["at_segments"], w["segment_count"])
    s = view_prefixes(w["at_prefixes"], w["rows"])[q]["leaf"]
    n = NOBODY
    while s >= 0:
        n = find_node(w, i, s)
        if n >= 0:
            break
        s = segments[s]["parent"]
    if n < 0:
        return 0, 0
    found = segments[s]["end"] - segments[s]["blocks"] + nodes[n]["resident"]
    while n >= 0 and nodes[n]["users"] == 0:
        n = nodes[n]["parent"]
    return int(found), int(segments[nodes[n]["segment"]]["end"]) if n >= 0 else 0


@kernel
def look_up_all(w: Rec, e: int, q: int, found: NDArray[Any]) -> None:
    """Blocks from the beginning of a hashed prompt that each instance of endpoint `e` has, as `look_up` finds them one by one.

    Args:
        w: the world.
        e: the endpoint.
        q: the request.
        found: int64[slots], filled in; where it is not -1 nothing is looked for.
    """
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segments = view_segments(w["at_segments"], w["segment_count"])
    slots = w["slots"]
    s = view_prefixes(w["at_prefixes"], w["rows"])[q]["leaf"]
    while s >= 0:
        segment = segments[s]
        before = segment["end"] - segment["blocks"]
        k = segment["first_at"] - e * slots
        if 0 <= k < slots and found[k] < 0:
            found[k] = before + nodes[segment["first"]]["resident"]
        if segment["others"] > 0:
            for k in range(slots):
                if found[k] < 0:
                    n = search_node(w, e * slots + k, s)
                    if n >= 0:
                        found[k] = before + nodes[n]["resident"]
        s = segment["parent"]


@kernel
def found_of(w: Rec, q: int, blocks: int) -> int:
    """Tokens that request `q` need not compute when so many blocks of its prompt are there."""
    r = view_requests(w["at_requests"], w["rows"])[q]
    return int(found_in_blocks(blocks, w["block_tokens"], r["prompt"] + r["made"]))


@kernel
def covered(w: Rec, q: int) -> int:
    """Tokens of the prompt of request `q` that lie in blocks of the cache while it runs; 0 when it is not hashed."""
    if not is_hashed(w, q):
        return 0
    s = view_prefixes(w["at_prefixes"], w["rows"])[q]["leaf"]
    return int(view_segments(w["at_segments"], w["segment_count"])[s]["end"] * w["block_tokens"]) if s >= 0 else 0


# --- blocks that nobody uses, in the order in which they go ------------------------------------------------------------------


@kernel
def push_idle(w: Rec, i: int, n: int) -> None:
    """Nobody uses node `n` of instance `i` any more: of all that are idle it goes last."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    cache = view_caches(w["at_caches"], w["units"])[i]
    cache["idle"] += nodes[n]["resident"] * w["block_tokens"]
    last = cache["last"]
    nodes[n]["sooner"] = last
    nodes[n]["later"] = NOBODY
    if last >= 0:
        nodes[last]["later"] = n
    else:
        cache["first"] = n
    cache["last"] = n


@kernel
def pull_idle(w: Rec, i: int, n: int) -> None:
    """Take node `n` of instance `i` out of those that are idle."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    cache = view_caches(w["at_caches"], w["units"])[i]
    cache["idle"] -= nodes[n]["resident"] * w["block_tokens"]
    sooner = nodes[n]["sooner"]
    later = nodes[n]["later"]
    if sooner >= 0:
        nodes[sooner]["later"] = later
    else:
        cache["first"] = later
    if later >= 0:
        nodes[later]["sooner"] = sooner
    else:
        cache["last"] = sooner


# --- nodes come and go -------------------------------------------------------------------------------------------------------


@kernel
def add_node(w: Rec, i: int, s: int) -> int:
    """A node for segment `s` at instance `i`, all of its blocks there and nobody using it; its parent is still to be said."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    n = w["node_free"]
    if n >= 0:
        w["node_free"] = nodes[n]["chain"]
    else:
        n = w["node_count"]
        w["node_count"] = n + 1
    segment = view_segments(w["at_segments"], w["segment_count"])[s]
    node = nodes[n]
    node["segment"] = s
    node["instance"] = i
    node["parent"] = NOBODY
    node["users"] = 0
    node["resident"] = segment["blocks"]
    if segment["first"] < 0:
        segment["first"] = n
        segment["first_at"] = i
    else:
        segment["others"] += 1
        buckets = view_i4(w["at_buckets"], w["bucket_count"])
        bucket = bucket_of(w, i, s)
        node["chain"] = buckets[bucket] - 1
        buckets[bucket] = n + 1
    return int(n)


@kernel
def drop_node(w: Rec, n: int) -> None:
    """Nothing of node `n`, which is not idle any more, is there now."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segment = view_segments(w["at_segments"], w["segment_count"])[nodes[n]["segment"]]
    if segment["first"] == n:
        segment["first"] = NOBODY
        segment["first_at"] = NOBODY
    else:
        segment["others"] -= 1
        unchain(w, n)
    nodes[n]["chain"] = w["node_free"]
    w["node_free"] = n


@kernel
def unchain(w: Rec, n: int) -> None:
    """Take node `n` out of its bucket."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    buckets = view_i4(w["at_buckets"], w["bucket_count"])
    bucket = bucket_of(w, nodes[n]["instance"], nodes[n]["segment"])
    following = nodes[n]["chain"]
    if buckets[bucket] - 1 == n:
        buckets[bucket] = following + 1
    else:
        before = buckets[bucket] - 1
        while nodes[before]["chain"] != n:
            before = nodes[before]["chain"]
        nodes[before]["chain"] = following


@kernel
def make_way(w: Rec, i: int) -> None:
    """Let idle blocks of instance `i` go until what is used has room: those let go first, the last of a prompt first."""
    cache = view_caches(w["at_caches"], w["units"])[i]
    engine = view_engines(w["at_engines"], w["units"])[i]
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    size = w["block_tokens"]
    over = engine["used"] + cache["idle"] - view_profiles(w["at_profiles"], w["profile_count"])[engine["profile"]]["kv_tokens"]
    while over > 0 and cache["first"] >= 0:
        n = cache["first"]
        going = min(nodes[n]["resident"], (over + size - 1) // size)
        over -= going * size
        if going == nodes[n]["resident"]:
            pull_idle(w, i, n)
            drop_node(w, n)
        else:
            nodes[n]["resident"] -= going
            cache["idle"] -= going * size


@kernel
def forget(w: Rec, i: int) -> None:
    """Instance `i`, which runs nothing, begins anew with an empty cache."""
    if w["caches"] == 0:
        return
    cache = view_caches(w["at_caches"], w["units"])[i]
    while cache["first"] >= 0:
        n = cache["first"]
        pull_idle(w, i, n)
        drop_node(w, n)


# --- requests come and go ----------------------------------------------------------------------------------------------------


@kernel
def use_node(w: Rec, i: int, n: int) -> bool:
    """Somebody more uses node `n` of instance `i`; True when nobody did, so that what is before it has one more user, too."""
    node = view_nodes(w["at_nodes"], w["node_rows"])[n]
    node["users"] += 1
    if node["users"] > 1:
        return False
    blocks = view_segments(w["at_segments"], w["segment_count"])[node["segment"]]["blocks"]
    view_engines(w["at_engines"], w["units"])[i]["used"] += blocks * w["block_tokens"]
    node["resident"] = blocks
    return True


@kernel
def hold(w: Rec, i: int, q: int, found: int) -> None:
    """Request `q`, which is hashed and found so many blocks, is admitted: its blocks are used, those that miss are made."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segments = view_segments(w["at_segments"], w["segment_count"])
    prefix = view_prefixes(w["at_prefixes"], w["rows"])[q]
    prefix["found"] = found
    prefix["node"] = NOBODY
    s = prefix["leaf"]
    below = NOBODY
    while s >= 0:
        n = find_node(w, i, s)
        if n < 0:
            n = add_node(w, i, s)
        elif nodes[n]["users"] == 0:
            pull_idle(w, i, n)
        if below < 0:
            prefix["node"] = n
        else:
            nodes[below]["parent"] = n
        if not use_node(w, i, n):
            break
        below = n
        s = segments[s]["parent"]


@kernel
def keep_answer(w: Rec, i: int, q: int) -> None:
    """Request `q` is done and still holds its prompt: the blocks of its answer become idle ones, the last first."""
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segments = view_segments(w["at_segments"], w["segment_count"])
    prefix = view_prefixes(w["at_prefixes"], w["rows"])[q]
    s = prefix["final"]
    below = NOBODY
    while s != prefix["leaf"]:
        n = find_node(w, i, s)
        if n < 0:
            n = add_node(w, i, s)
            push_idle(w, i, n)
        elif nodes[n]["users"] == 0:
            pull_idle(w, i, n)
            nodes[n]["resident"] = segments[s]["blocks"]
            push_idle(w, i, n)
        if below >= 0:
            nodes[below]["parent"] = n
        below = n
        s = segments[s]["parent"]
    if below >= 0:
        nodes[below]["parent"] = prefix["node"]


@kernel
def let_go(w: Rec, i: int, q: int, computed: int) -> None:
    """Request `q` leaves instance `i`: what nobody else uses is idle, but for blocks it made and did not finish.

    Args:
        w: the world.
        i: the instance.
        q: the request; nothing happens when it is not hashed.
        computed: tokens of its context that are there; ALL: of its whole prompt.
    """
    if not is_hashed(w, q):
        return
    nodes = view_nodes(w["at_nodes"], w["node_rows"])
    segments = view_segments(w["at_segments"], w["segment_count"])
    prefix = view_prefixes(w["at_prefixes"], w["rows"])[q]
    engine = view_engines(w["at_engines"], w["units"])[i]
    whole = max(prefix["found"], computed // w["block_tokens"])
    n = prefix["node"]
    while n >= 0:
        node = nodes[n]
        node["users"] -= 1
        if node["users"] > 0:
            return
        segment = segments[node["segment"]]
        engine["used"] -= segment["blocks"] * w["block_tokens"]
        node["resident"] = min(segment["blocks"], whole - (segment["end"] - segment["blocks"]))
        if node["resident"] > 0:
            push_idle(w, i, n)
        else:
            drop_node(w, n)
        n = node["parent"]


@kernel
def finish_prefix(w: Rec, i: int, q: int) -> None:
    """Request `q` has its last token: prompt and answer are idle blocks from now on."""
    if is_hashed(w, q):
        keep_answer(w, i, q)
        let_go(w, i, q, ALL)
