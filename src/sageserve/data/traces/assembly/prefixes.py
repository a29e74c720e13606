"""What a prefix cache without bounds would find of prompts whose blocks are hashed.

A block is found when an earlier request had its hash; a prompt's found blocks count from its beginning up to the first that
is not. The simulator plays a bounded cache for each instance (`sim/kernel/prefix_cache.py`). Read next: `rows.py`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.records import CACHE_BLOCK, UNSET, Ints, PromptBlocks
from sageserve.data.traces.assembly.rows import Rows
from sageserve.data.traces.columns.convert import Lengths

_SIZES: Final = (512, 16, 1024, 256, 128, 64, 32, 2048, 4096)
"""Blocks that prompts are hashed in: Mooncake's, engines', and powers of two."""


def with_cached(rows: Rows) -> tuple[Rows, list[str]]:
    """The rows, sorted by time, with cached tokens of those that do not say how many were.

    A prompt that is found whole is computed from its last block of 16 on, as `records.cached_tokens` has it.
    """
    if rows.blocks is None or not len(rows.blocks.hashes):
        return (rows if rows.blocks is None else replace(rows, blocks=None)).without("block"), []
    size, notes = _block_size(rows)
    blocks = replace(rows.blocks, size=size)
    found = blocks_found(blocks, rows.named["model"].codes if "model" in rows.named else np.zeros(len(rows), np.int32))
    most = (rows.prompt - 1) // CACHE_BLOCK * CACHE_BLOCK
    tokens = np.minimum(found * size, most)
    said = rows.numbers.get("cached", np.full(len(rows), UNSET, dtype=np.int64))
    hashed = blocks.counts() > 0
    cached = np.where((said == UNSET) & hashed, tokens, said)
    share = float(tokens[hashed].sum() / rows.prompt[hashed].sum())
    notes.append(
        f"{int(hashed.sum()):,} requests have block hashes ({size:,} tokens each): a cache without bounds would find {share:.1%} "
        "of their prompts" + ("; where the file says how many tokens were cached, that counts" if (said != UNSET).any() else "")
    )
    return replace(rows.without("block"), numbers={**rows.without("block").numbers, "cached": cached}, blocks=blocks), notes


def blocks_found(blocks: PromptBlocks, models: NDArray[np.int32]) -> Ints:
    """int64[n]: leading blocks of each request that an earlier one of its model had."""
    counts = blocks.counts()
    rows = np.repeat(np.arange(len(blocks)), counts)
    _, codes = np.unique(blocks.hashes, return_inverse=True)
    codes = codes * (int(models.max(initial=0)) + 2) + models[rows] + 1
    _, firsts, codes = np.unique(codes, return_index=True, return_inverse=True)
    met = rows[firsts][codes] < rows
    leading = counts.copy()
    misses = np.flatnonzero(~met)
    starts = blocks.ends - counts
    place = misses - starts[rows[misses]]
    np.minimum.at(leading, rows[misses], place)
    return leading


def _block_size(rows: Rows) -> tuple[int, list[str]]:
    """Tokens per block: what the file says, else what the format says, unless its hashes fit another size and not that."""
    assert rows.blocks is not None
    written = rows.numbers.get("block")
    if written is not None and (written > 0).any():
        return int(np.median(written[written > 0])), []
    counts = rows.blocks.counts()
    some = counts > 0
    usual = rows.blocks.size
    fitting = [size for size in ((usual,) if usual else ()) + _SIZES if _fits(rows.prompt[some], counts[some], size)]
    if usual in fitting:
        return usual, []
    if fitting:
        return fitting[0], [f"block hashes are taken for {fitting[0]:,} tokens each, as their number says"]
    size = usual or CACHE_BLOCK
    return size, [f"block hashes are taken for {size} tokens each, though their number does not fit the prompts' lengths"]


def _fits(prompt: Lengths, counts: Ints, size: int) -> bool:
    """Whether prompts have as many hashes as blocks of that size."""
    return bool((counts == -(-prompt // size)).mean() >= 0.9)  # some writers leave out a block of a template


def joined(parts: Sequence[PromptBlocks | None], lengths: Sequence[int]) -> PromptBlocks | None:
    """Hashes of several traces one after the other; traces of numbered blocks keep theirs apart.

    Args:
        parts: of each trace; None: it has none.
        lengths: requests of each trace.
    """
    known = [part for part in parts if part is not None]
    if not known or len({part.size for part in known}) > 1:
        return None
    counts, hashes, base = [], [], 0
    for part, length in zip(parts, lengths, strict=True):
        counts.append(np.zeros(length, np.int64) if part is None else part.counts())
        if part is not None and len(part.hashes):
            numbered = int(part.hashes.max()) < 2**32  # numbers count from 0 in every file; wider ones are real hashes
            hashes.append(part.hashes + np.uint64(base) if numbered else part.hashes)
            base += int(part.hashes.max()) + 1 if numbered else 0
    values = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    return PromptBlocks(np.cumsum(np.concatenate(counts)), values, known[0].size)
