"""Triton kernels of the engine: norm, positions and cache, attention, activation, experts, adapters.

They read the KV cache by pages, through a table with one row of page numbers per sequence. Those of decoding
can be captured in a CUDA graph: what changes from step to step is read from memory, and programs that have nothing to do end at
once. On a machine without a GPU they run under TRITON_INTERPRET=1, slowly. Read next: `model.py`, which calls them.
"""

from typing import Final

import triton
import triton.language as tl

SPLIT: Final = 256  # tokens of a context that one program of decoding reads


@triton.jit
def norm(x, residual, weight, out, WIDTH: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr):
    """RMS norm of a row; with ADD, x is added to the residual stream first, which is kept."""
    row, at = tl.program_id(0), tl.arange(0, BLOCK)
    inside = at < WIDTH
    value = tl.load(x + row * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + row * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(residual + row * WIDTH + at, value, mask=inside)
    scale = tl.rsqrt(tl.sum(value * value, 0) / WIDTH + 1e-5)
    by = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + at, value * scale * by, mask=inside)


@triton.jit
def rotate(
    qkv,
    query,
    keys,
    values,
    rows,
    position,
    table,
    TABLE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    PAGE_: tl.constexpr,
):
    """Turn queries and keys by their position; keys and values go to their place in the cache."""
    token, head = tl.program_id(0), tl.program_id(1)
    where, row = tl.load(position + token), tl.load(rows + token)
    page = tl.load(table + row * TABLE + where // PAGE_)
    place = (page * PAGE_ + where % PAGE_).to(tl.int64)
    half: tl.constexpr = D // 2
    i = tl.arange(0, half)
    begin = qkv + (token * (HEADS + 2 * KV_HEADS) + head).to(tl.int64) * D
    low, high = tl.load(begin + i).to(tl.float32), tl.load(begin + half + i).to(tl.float32)
    if head < HEADS + KV_HEADS:
        angle = where.to(tl.float32) * tl.exp2(i.to(tl.float32) * (-2.0 / D * 18.931568569324174))  # base 500,000
        cos, sin = tl.cos(angle), tl.sin(angle)
        low, high = low * cos - high * sin, high * cos + low * sin
    if head < HEADS:
        to = query + (token * HEADS + head).to(tl.int64) * D
    elif head < HEADS + KV_HEADS:
        to = keys + (place * KV_HEADS + head - HEADS) * D
    else:
        to = values + (place * KV_HEADS + head - HEADS - KV_HEADS) * D
    tl.store(to + i, low)
    tl.store(to + half + i, high)


@triton.jit
def weigh(q, keys, values, there, seen, scale, best, total, sums, D: tl.constexpr):
    """Take some more tokens of a context into a softmax: `seen` says which query sees which of those that are `there`."""
    d = tl.arange(0, D)
    k = tl.load(keys[None, :] + d[:, None], mask=there[None, :], other=0.0)
    score = tl.where(seen, tl.dot(q, k) * scale, -1e30)
    higher = tl.maximum(best, tl.max(score, 1))
    share, kept = tl.exp2(score - higher[:, None]), tl.exp2(best - higher)
    v = tl.load(values[:, None] + d[None, :], mask=there[:, None], other=0.0)
    return higher, total * kept + tl.sum(share, 1), sums * kept[:, None] + tl.dot(share.to(v.dtype), v)


@triton.jit
def decode(
    query,
    keys,
    values,
    rows,
    lengths,
    table,
    part,
    weight,
    scale,
    TABLE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    GROUP: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLIT_: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE_: tl.constexpr,
):
    """Attention of one new token over SPLIT tokens of its context, for all queries that share a head of keys."""
    n, shared, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + n)
    start = split * SPLIT_
    if start >= length:
        return
    end = tl.minimum(start + SPLIT_, length)
    row = tl.load(rows + n)
    ratio: tl.constexpr = HEADS // KV_HEADS
    g, d = tl.arange(0, GROUP), tl.arange(0, D)
    heads, asked = n * HEADS + shared * ratio + g, g < ratio
    q = tl.load(query + heads[:, None] * D + d[None, :], mask=asked[:, None], other=0.0)
    best = tl.full([GROUP], -1e30, tl.float32)
    total = tl.zeros([GROUP], tl.float32)
    sums = tl.zeros([GROUP, D], tl.float32)
    for at in range(start, end, BLOCK):
        t = at + tl.arange(0, BLOCK)
        page = tl.load(table + row * TABLE + t // PAGE_, mask=t < end, other=0)
        place = ((page * PAGE_ + t % PAGE_).to(tl.int64) * KV_HEADS + shared) * D
        best, total, sums = weigh(q, keys + place, values + place, t < end, (t < end)[None, :], scale, best, total, sums, D)
    tl.store(part + (heads * SPLITS + split)[:, None].to(tl.int64) * D + d[None, :], sums / total[:, None], mask=asked[:, None])
    tl.store(weight + heads * SPLITS + split, best + tl.log2(total), mask=asked)


@triton.jit
def combine(
    part,
    weight,
    lengths,
    out,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    SPLITS: tl.constexpr,
    SPLIT_: tl.constexpr,
    PADDED: tl.constexpr,
):
    """The parts of a context put together; what belongs to nobody, or to a prompt, is left alone."""
    n, head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + n)
    if length == 0:
        return
    s, d = tl.arange(0, PADDED), tl.arange(0, D)
    there = s * SPLIT_ < length
    at = (n * HEADS + head) * SPLITS + s
    weights = tl.load(weight + at, mask=there, other=-1e30)
    share = tl.where(there, tl.exp2(weights - tl.max(weights, 0)), 0.0)
    parts = tl.load(part + at[:, None].to(tl.int64) * D + d[None, :], mask=there[:, None], other=0.0)
    whole = tl.sum(parts * share[:, None], 0) / tl.maximum(tl.sum(share, 0), 1e-30)
    tl.store(out + (n * HEADS + head) * D + d, whole)


@triton.jit
def prefill(
    query,
    keys,
    values,
    out,
    pieces,
    table,
    scale,
    TABLE: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK: tl.constexpr,
    PAGE_: tl.constexpr,
):
    """Attention of up to BLOCK_M tokens of a prompt over all that is before them.

    `pieces` has four numbers per block of queries: row of the table, first token in the batch, tokens, position of the first.
    """
    block, head = tl.program_id(0), tl.program_id(1)
    row, first = tl.load(pieces + block * 4), tl.load(pieces + block * 4 + 1)
    count, begin = tl.load(pieces + block * 4 + 2), tl.load(pieces + block * 4 + 3)
    if count == 0:
        return
    m, d = tl.arange(0, BLOCK_M), tl.arange(0, D)
    at_query = ((first + m) * HEADS + head)[:, None].to(tl.int64) * D + d[None, :]
    asked = (m < count)[:, None]
    q = tl.load(query + at_query, mask=asked, other=0.0)
    best = tl.full([BLOCK_M], -1e30, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    sums = tl.zeros([BLOCK_M, D], tl.float32)
    shared = head // (HEADS // KV_HEADS)
    end = begin + count
    for at in range(0, end, BLOCK):
        t = at + tl.arange(0, BLOCK)
        page = tl.load(table + row * TABLE + t // PAGE_, mask=t < end, other=0)
        place = ((page * PAGE_ + t % PAGE_).to(tl.int64) * KV_HEADS + shared) * D
        best, total, sums = weigh(
            q, keys + place, values + place, t < end, t[None, :] <= begin + m[:, None], scale, best, total, sums, D
        )
    tl.store(out + at_query, sums / total[:, None], mask=asked)


@triton.jit
def gate(x, out, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """SiLU of the first half of a row times the second."""
    row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < WIDTH
    one = tl.load(x + row * 2 * WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(x + row * 2 * WIDTH + WIDTH + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * WIDTH + at, one * tl.sigmoid(one) * other, mask=inside)


@triton.jit(do_not_specialize=["total"])
def count(chosen, counts, total, BLOCK: tl.constexpr):
    """How many tokens chose expert e."""
    expert = tl.program_id(0)
    seen = tl.zeros([BLOCK], tl.int32)
    for at in range(0, total, BLOCK):
        i = at + tl.arange(0, BLOCK)
        seen += (tl.load(chosen + i, mask=i < total, other=-1) == expert).to(tl.int32)
    tl.store(counts + expert, tl.sum(seen, 0))


@triton.jit(do_not_specialize=["total"])
def place(
    chosen,
    counts,
    order,
    owner,
    used,
    total,
    EXPERTS: tl.constexpr,
    PADDED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sort choices by expert, each expert's padded to blocks of BLOCK_M by `total`; say whose each block is, and how many are."""
    expert = tl.program_id(0)
    every = tl.arange(0, PADDED)
    blocks = (tl.load(counts + every, mask=every < EXPERTS, other=0) + BLOCK_M - 1) // BLOCK_M
    begin = tl.sum(tl.where(every < expert, blocks, 0), 0)
    mine = tl.sum(tl.where(every == expert, blocks, 0), 0)
    for block in range(mine):
        tl.store(owner + begin + block, expert)
    done = 0
    for at in range(0, total, BLOCK):
        i = at + tl.arange(0, BLOCK)
        hit = (tl.load(chosen + i, mask=i < total, other=-1) == expert).to(tl.int32)
        tl.store(order + begin * BLOCK_M + done + tl.cumsum(hit, 0) - 1, i, mask=hit == 1)
        done += tl.sum(hit, 0)
    rest = done + tl.arange(0, BLOCK_M)
    tl.store(order + begin * BLOCK_M + rest, total + tl.zeros([BLOCK_M], tl.int32), mask=rest < mine * BLOCK_M)
    if expert == EXPERTS - 1:
        tl.store(used, begin + mine)


@triton.jit(do_not_specialize=["total"])
def grouped(
    x,
    weights,
    out,
    order,
    owner,
    used,
    by,
    total,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    PER: tl.constexpr,
    SCALED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A block of rows times the weights of the expert whose it is; with SCALED, times how much the token wants it."""
    block = tl.program_id(0)
    if block >= tl.load(used):
        return
    expert = tl.load(owner + block).to(tl.int64)
    rows = tl.load(order + block * BLOCK_M + tl.arange(0, BLOCK_M))
    there = (rows < total)[:, None]
    n, k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    left = x + (rows // PER)[:, None].to(tl.int64) * DEPTH + k[None, :]
    right = weights + expert * WIDTH * DEPTH + n[None, :].to(tl.int64) * DEPTH + k[:, None]
    sums = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for at in range(0, DEPTH, BLOCK_K):
        inside = k < DEPTH - at
        a = tl.load(left + at, mask=there & inside[None, :], other=0.0)
        b = tl.load(right + at, mask=(n < WIDTH)[None, :] & inside[:, None], other=0.0)
        sums += tl.dot(a, b)
    if SCALED:
        sums *= tl.load(by + rows, mask=rows < total, other=0.0).to(tl.float32)[:, None]
    tl.store(out + rows[:, None].to(tl.int64) * WIDTH + n[None, :], sums, mask=there & (n < WIDTH)[None, :])


@triton.jit(do_not_specialize=["total"])
def shrink(
    x,
    first,
    narrow,
    order,
    owner,
    used,
    total,
    DEPTH: tl.constexpr,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    PIECE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A piece of the depth of a block of rows times a first matrix of the adapter whose it is, added to `narrow` (float32)."""
    block = tl.program_id(0)
    if block >= tl.load(used):
        return
    adapter = tl.load(owner + block).to(tl.int64)
    rows = tl.load(order + block * BLOCK_M + tl.arange(0, BLOCK_M))
    there = (rows < total)[:, None]
    part, n, k = tl.program_id(2), tl.arange(0, RANK), tl.program_id(1) * PIECE + tl.arange(0, BLOCK_K)
    left = x + rows[:, None].to(tl.int64) * DEPTH + k[None, :]
    right = first + ((adapter * PARTS + part) * RANK + n[None, :]) * DEPTH + k[:, None]
    sums = tl.zeros([BLOCK_M, RANK], tl.float32)
    for at in range(0, PIECE, BLOCK_K):
        a = tl.load(left + at, mask=there & (k < DEPTH - at)[None, :], other=0.0)
        b = tl.load(right + at, mask=(k < DEPTH - at)[:, None], other=0.0)
        sums += tl.dot(a, b)
    tl.atomic_add(narrow + (rows[:, None].to(tl.int64) * PARTS + part) * RANK + n[None, :], sums, mask=there)


@triton.jit(do_not_specialize=["total"])
def expand(
    narrow,
    second,
    out,
    order,
    owner,
    used,
    total,
    WIDE: tl.constexpr,
    RANK: tl.constexpr,
    PARTS: tl.constexpr,
    EDGE: tl.constexpr,
    NEXT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """What is narrow times the second matrix, added to `out`; columns from EDGE and from NEXT on are other parts."""
    block = tl.program_id(0)
    if block >= tl.load(used):
        return
    adapter = tl.load(owner + block).to(tl.int64)
    rows = tl.load(order + block * BLOCK_M + tl.arange(0, BLOCK_M))
    begin = tl.program_id(1) * BLOCK_N
    part = (begin >= EDGE).to(tl.int32) + (begin >= NEXT).to(tl.int32)
    n, k = begin + tl.arange(0, BLOCK_N), tl.arange(0, RANK)
    there = (rows < total)[:, None] & (n < WIDE)[None, :]
    a = tl.load(narrow + (rows[:, None].to(tl.int64) * PARTS + part) * RANK + k[None, :], mask=(rows < total)[:, None], other=0.0)
    b = tl.load(second + (adapter * WIDE + n[None, :]) * RANK + k[:, None], mask=(n < WIDE)[None, :], other=0.0)
    to = out + rows[:, None].to(tl.int64) * WIDE + n[None, :]
    sums = tl.dot(a.to(b.dtype), b) + tl.load(to, mask=there, other=0.0).to(tl.float32)
    tl.store(to, sums, mask=there)
