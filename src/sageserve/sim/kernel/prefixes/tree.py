"""What prompts share, before anything is played: blocks that are hashed become a tree, and chains of it segments.

A block is known by its hash and the blocks before it. Whoever goes through one block of a chain goes through all of it, so caches
count whole chains (`sim/kernel/prefix_cache.py`) and still know every block. A cache has whole blocks only.
Knows no instance and no time. Read next: docs/reference/kernel.md, "Block hashes".
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.kernel import kernel
from sageserve.base.records import UNSET, Ints, PromptBlocks, Trace
from sageserve.base.sessions import Turns, turns_before

NO_BLOCK: Final = -1  # hashed, but shorter than a block
UNHASHED: Final = -2  # nothing says what it shares: its cached tokens are those that are stated

PREFIX: Final = np.dtype(
    [
        ("leaf", "i4"),  # segment its prompt ends with; NO_BLOCK, UNHASHED
        ("final", "i4"),  # segment that prompt and answer end with, as far as the next turn has them
        ("node", "i4"),  # while admitted: node of `leaf` at its instance
        ("found", "i4"),  # blocks it found when it was admitted
    ],
    align=True,
)
SEGMENT: Final = np.dtype(
    [
        ("parent", "i4"),  # segment before it; NO_BLOCK: it begins prompts
        ("blocks", "i4"),
        ("end", "i4"),  # blocks from the beginning of a prompt to its end
        ("first", "i4"),  # a node of it, found without a search: most segments are at one instance; -1: none
        ("first_at", "i4"),  # its instance; -1
        ("others", "i4"),  # how many more instances have it, to be searched for
    ],
    align=True,
)


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Hashes of requests in the order in which the kernel holds them.

    Args:
        blocks: of n prompts.
        after: int64[n], row of the next turn of the conversation; UNSET where there is none.
    """

    blocks: PromptBlocks
    after: Ints


def prefixes_of(trace: Trace, turns: Turns | None = None) -> Prefixes | None:
    """The hashes of a trace, in the order of `turns`; None when it has none."""
    if trace.blocks is None or not len(trace.blocks.hashes):
        return None
    before = turns_before(trace)
    order = np.arange(len(trace)) if turns is None else turns.order
    place = np.empty(len(trace), np.int64)
    place[order] = np.arange(len(trace))
    after = np.full(len(trace), UNSET, np.int64)
    later = np.flatnonzero(before != UNSET)
    after[place[before[later]]] = place[later]
    return Prefixes(trace.blocks if turns is None else trace.blocks.take(order), after)


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Segments, and where requests end in them.

    Args:
        rows: PREFIX[n].
        segments: SEGMENT rows, parents before their children.
        deepest: segments on the longest way from a beginning.
    """

    rows: NDArray[Any]
    segments: NDArray[Any]
    deepest: int


def grow(prefixes: Prefixes, prompt: NDArray[np.int32], output: NDArray[np.int32]) -> PrefixTree:
    """The tree of these prompts and, where a conversation goes on, of their answers.

    Args:
        prefixes: hashes of n requests.
        prompt: int32[n], tokens.
        output: int32[n], tokens; all but the last are kept when a request is done.
    """
    blocks, size = prefixes.blocks, prefixes.blocks.size
    counts = blocks.counts()
    whole = np.minimum(counts, prompt.astype(np.int64) // size)
    total = int(whole.sum())
    room = 1 << max(4, (2 * total).bit_length())
    parent, code = np.zeros(max(total, 1), np.int32), np.zeros(max(total, 1), np.int64)
    ends = np.full(len(blocks), NO_BLOCK, np.int32)
    codes = blocks.hashes.view(np.int64)
    known = add_blocks((blocks.ends - counts, whole, codes), (parent, code, np.zeros(room, np.int32)), ends)
    kept = (prompt.astype(np.int64) + output - 1) // size
    finals = ends.copy()
    add_answers(prefixes.after, (whole, kept), parent, ends, finals)
    rows = np.zeros(len(blocks), PREFIX)
    of, segments = np.zeros(known, np.int32), np.zeros(known, SEGMENT)
    used = cut_chains(parent[:known], np.concatenate([ends, finals]), of, segments)
    for name, node in (("leaf", ends), ("final", finals)):
        rows[name] = np.where(node >= 0, of[node] if known else NO_BLOCK, NO_BLOCK)
        rows[name][counts == 0] = UNHASHED
    segments["first"] = segments["first_at"] = -1
    depth = np.zeros(used, np.int32)
    deepest = measure(segments[:used], depth)
    return PrefixTree(rows, segments[:used].copy(), deepest)


@kernel
def add_blocks(
    prompts: tuple[Ints, Ints, Ints], tree: tuple[NDArray[np.int32], Ints, NDArray[np.int32]], ends: NDArray[np.int32]
) -> int:
    """Put the whole blocks of every prompt into the tree; returns how many there are.

    Args:
        prompts: where the hashes of each begin, how many count, and the hashes.
        tree: of each block the one before it and its hash, and a table of open addressing of a power of two.
        ends: filled in: the last block of each prompt.
    """
    begins, whole, codes = prompts
    parent, code, table = tree
    mask = len(table) - 1
    known = 0
    for q in range(len(begins)):
        block = -1
        for k in range(begins[q], begins[q] + whole[q]):
            key = int(codes[k] ^ (codes[k] >> 31)) & 0x7FFFFFFF
            key = (key * 2654435761 + (block + 1) * 40503) & 0x7FFFFFFFFFFFFFFF
            slot = (key ^ (key >> 21)) & mask
            while table[slot] != 0 and (parent[table[slot] - 1] != block or code[table[slot] - 1] != codes[k]):
                slot = (slot + 1) & mask
            if table[slot] == 0:
                parent[known] = block
                code[known] = codes[k]
                known += 1
                table[slot] = known
            block = int(table[slot]) - 1
        ends[q] = block
    return known


@kernel
def add_answers(
    after: Ints, blocks: tuple[Ints, Ints], parent: NDArray[np.int32], ends: NDArray[np.int32], finals: NDArray[np.int32]
) -> None:
    """Where the next turn goes on from a prompt and its answer, say with which block the answer ends.

    Args:
        after: row of the next turn.
        blocks: whole blocks of each prompt, and of each prompt with its answer.
        parent: of each block the one before it.
        ends: the last block of each prompt.
        finals: filled in where an answer has blocks of its own.
    """
    whole, kept = blocks
    for q in range(len(after)):
        if after[q] < 0:
            continue
        want = min(kept[q], whole[after[q]])
        if want <= whole[q]:
            continue
        block = ends[after[q]]
        for _ in range(whole[after[q]] - want):
            block = parent[block]
        final = block
        for _ in range(want - whole[q]):
            block = parent[block]
        if block == ends[q]:
            finals[q] = final


@kernel
def cut_chains(parent: NDArray[np.int32], ends: NDArray[np.int32], of: NDArray[np.int32], segments: NDArray[Any]) -> int:
    """Join blocks that always come together to segments; returns how many there are.

    Args:
        parent: of each block the one before it.
        ends: blocks after which somebody ends; -1: nobody.
        of: filled in: the segment of each block.
        segments: filled in.
    """
    children = np.zeros(len(parent), np.int32)
    for block in range(len(parent)):
        if parent[block] >= 0:
            children[parent[block]] += 1
    for end in ends:
        if end >= 0:
            children[end] = 2  # a segment ends here, however it goes on
    used = 0
    for block in range(len(parent)):
        before = parent[block]
        if before >= 0 and children[before] == 1:
            of[block] = of[before]
        else:
            segments[used]["parent"] = of[before] if before >= 0 else -1
            of[block] = used
            used += 1
        segments[of[block]]["blocks"] += 1
    for s in range(used):
        above = segments[s]["parent"]
        segments[s]["end"] = segments[s]["blocks"] + (segments[above]["end"] if above >= 0 else 0)
    return used


@kernel
def measure(segments: NDArray[Any], depth: NDArray[np.int32]) -> int:
    """Segments on the longest way from a beginning; `depth` is filled in with how many there are to each."""
    deepest = 0
    for s in range(len(segments)):
        above = segments[s]["parent"]
        depth[s] = 1 + (depth[above] if above >= 0 else 0)
        deepest = max(deepest, depth[s])
    return int(deepest)
