"""The engine model: tokens to time.

One iteration computes T tokens: one per decoding sequence and those of the prompt pieces in it. With n sequences decoding over K
tokens of KV cache, and pieces of p tokens after x tokens of the same prompt, it takes

    F(T) + decode*n + kv*K + attention*sum(p*(x + p/2)) + eager, if it prefills

F is a curve of straight lines between knots: weights are streamed until arithmetic takes longer, and a mixture of experts reads
more of them the more tokens ask for it. T stays the same while nobody joins or leaves, so a run of decode iterations is linear in
its number and has a closed form (`block_time`).

An engine that speculates tries k tokens beyond the next one of every decoding sequence: T has k + 1 tokens for each, and all
sequences gain the same in an iteration, on average as many as are accepted (`tokens_made`). The drafter's first pass is over all
T tokens and the k - 1 others over the n sequences; each takes its share of what the model takes.

An engine with data parallelism has ranks, each with a batch and a cache of its own. Those of a mixture of experts keep in step:
an iteration takes as long as that of the slowest rank, and the part of F that is shared goes by the mean of T over all of them.
Work that an instance is given is spread over its ranks.

A row holds the numbers of one engine in microseconds, by the names of `EngineRow`; it may be a dictionary or a row of `PROFILE`.
The functions call each other by name and nothing else, so that they can be compiled one by one. Read next:
docs/reference/kernel.md.
"""

from itertools import pairwise
from typing import Final, TypedDict

from sageserve.base.config import ProfileSettings
from sageserve.base.config.models import KNOTS

ACCEPTED_BITS: Final = 20
ACCEPTED_PARTS: Final = 1 << ACCEPTED_BITS
"""Parts of a token in which the tokens that are accepted are counted: sums of them are exact."""

WEIGHT_ONE: Final = 1000
"""Weight of the fastest profile of a model; a profile that is 1.5 times slower weighs 1500."""


ALWAYS_GRAPHS: Final = 2**31 - 1
"""Sequences up to which decoding runs in CUDA graphs where nothing is said: more than any engine takes."""


class EngineRow(TypedDict):
    """One engine, in microseconds, tokens and sequences."""

    tokens: list[float]  # knots of F: tokens of an iteration, ascending from 1; unused ones are infinite
    time: list[float]  # us at the knot
    slope: list[float]  # us per token after it
    shared_tokens: list[float]  # knots of the part of F that goes by the mean tokens of all ranks, where they keep in step
    shared_time: list[float]
    shared_slope: list[float]
    eager: float  # us more, if the iteration prefills
    decode: float  # us per decoding sequence
    kv: float  # us per KV token read by decoding
    attention: float  # us per prompt token and token of context before it
    whole: float  # us per prompt token in iterations of nothing else
    per_sequence: float  # one over max_sequences, and so on: divisions that are not made again and again
    per_kv: float
    per_token: float
    per_rank: float
    entry: int  # us once per request, around its first token
    kv_tokens: int
    weight: int  # relative cost of a token when instances of several profiles share an endpoint
    max_sequences: int
    max_batched: int
    chunked: int  # prompts are prefilled in pieces
    mixed: int  # beside sequences that decode; else these pause
    evicts: int  # memory is given as contexts grow, and who came last loses it; else all of it is kept free from the start
    graphs: int  # sequences up to which decoding runs in CUDA graphs
    caching: int  # what a preempted request computed is found again until others need the memory
    drafted: int  # tokens tried beyond the next one of each decoding sequence
    extra: int  # of these, accepted per iteration, in parts of ACCEPTED_PARTS
    drafting: float  # the drafter's further passes, as a share of F over the sequences
    ranks: int
    lockstep: int  # ranks begin and end iterations together
    gpus: int
    slots: int  # for LoRA adapters; 0: it has none, and who asks for an adapter is served as anybody
    adapter: float  # us per adapter that computes in an iteration
    adapters: float  # us more, if any does
    adapter_load: float  # us to bring one into a slot, which the iteration waits for


def row_of(profile: ProfileSettings) -> EngineRow:
    """The row of a profile."""
    told, slots = profile.speculative, profile.adapters
    draft, drafted = (told.draft, told.tokens) if told else (0.0, 0)
    once = 1.0 + draft  # the model, and the drafter's pass over the same tokens
    tokens, time, slope = _lines(profile.iteration_ms, once)
    shared = _lines(profile.shared_ms if profile.in_step and profile.shared_ms else ((1, 0.0), (2, 0.0)), once)
    row = EngineRow(
        tokens=tokens,
        time=time,
        slope=slope,
        shared_tokens=shared[0],
        shared_time=shared[1],
        shared_slope=shared[2],
        eager=profile.eager_ms * 1e3,
        decode=profile.decode_us_per_sequence,
        kv=profile.kv_ns_per_token * 1e-3 * (1.0 + drafted * draft),
        attention=profile.attention_ns_per_token2 * 1e-3 * once,
        whole=0.0,
        per_sequence=1.0 / profile.max_sequences,
        per_kv=1.0 / profile.kv_tokens,
        per_token=1.0 / profile.max_batched_tokens,
        per_rank=1.0 / profile.dp,
        entry=round(profile.first_token_ms * 1e3),
        kv_tokens=profile.kv_tokens,
        weight=WEIGHT_ONE,
        max_sequences=profile.max_sequences,
        max_batched=profile.max_batched_tokens,
        chunked=int(profile.chunked),
        mixed=int(profile.is_mixed),
        evicts=int(profile.evicts),
        graphs=profile.graph_sequences or ALWAYS_GRAPHS,
        caching=int(profile.prefix_caching),
        drafted=drafted,
        extra=round((told.gain - 1.0) * ACCEPTED_PARTS) if told else 0,
        drafting=(drafted - 1) * draft / once if told else 0.0,
        ranks=profile.dp,
        lockstep=int(profile.in_step),
        gpus=profile.gpus,
        slots=(slots.slots or 0) if slots else 0,
        adapter=(slots.adapter_us or 0.0) if slots else 0.0,
        adapters=(slots.any_us or 0.0) if slots else 0.0,
        adapter_load=float(slots.loading) if slots else 0.0,
    )
    row["whole"] = (curve_time(row, float(row["max_batched"])) + row["eager"]) / row["max_batched"]
    return row


def _lines(curve: tuple[tuple[int, float], ...], times: float) -> tuple[list[float], list[float], list[float]]:
    """Tokens, microseconds and slopes of a curve that takes `times` as long, KNOTS of each."""
    knots = [(float(tokens), ms * 1e3 * times) for tokens, ms in curve]
    slopes = [(later[1] - one[1]) / (later[0] - one[0]) for one, later in pairwise(knots)]
    unused = KNOTS - len(knots)
    tokens = [tokens for tokens, _ in knots] + [float("inf")] * unused
    return tokens, [time for _, time in knots] + [0.0] * unused, [*slopes, slopes[-1], *([0.0] * unused)]


def on_line(knots: list[float], time: list[float], slope: list[float], tokens: float) -> float:
    """What a curve is at so many tokens."""
    k = 0
    while k < KNOTS - 1 and knots[k + 1] <= tokens:
        k += 1
    return time[k] + slope[k] * (tokens - knots[k])


def curve_time(profile: EngineRow, tokens: float) -> float:
    """F: microseconds of an iteration of so many tokens, without what depends on sequences and contexts."""
    return on_line(profile["tokens"], profile["time"], profile["slope"], tokens)


def decoding_time(profile: EngineRow, sequences: float) -> float:
    """F of an iteration in which so many sequences decode and nothing is prefilled, with what it takes without a CUDA graph."""
    time = sequences_time(profile, 0.0, sequences)
    return time + (profile["eager"] if sequences > profile["graphs"] else 0.0)


def sequences_time(profile: EngineRow, prefill: float, sequences: float) -> float:
    """F of an iteration of `prefill` prompt tokens and so many sequences that decode, with what the drafter adds."""
    time = curve_time(profile, prefill + sequences + sequences * profile["drafted"])
    if profile["drafting"] > 0.0 and sequences > 0.0:
        time += profile["drafting"] * curve_time(profile, sequences)
    return time


def gain(profile: EngineRow) -> float:
    """Tokens that a decoding sequence makes in an iteration, on average."""
    return 1.0 + profile["extra"] / ACCEPTED_PARTS


def shared_time(profile: EngineRow, tokens: float) -> float:
    """Microseconds of F that go by the mean tokens of all ranks, if that mean is `tokens`; where ranks keep in step."""
    return on_line(profile["shared_tokens"], profile["shared_time"], profile["shared_slope"], tokens)


def lone_time(profile: EngineRow, tokens: float) -> float:
    """F while all other ranks are idle: where they keep in step, each of them computes a token for nothing."""
    time = curve_time(profile, tokens)
    if profile["lockstep"] != 0:
        time += shared_time(profile, (tokens + profile["ranks"] - 1.0) * profile["per_rank"]) - shared_time(profile, tokens)
    return time


def iteration_time(profile: EngineRow, prefill: float, attention: float, sequences: int, kv: int) -> float:
    """Microseconds of one iteration: `prefill` tokens with attention sum `attention`, `sequences` decoding over `kv` tokens."""
    time = curve_time(profile, float(prefill + sequences + sequences * profile["drafted"])) + profile["attention"] * attention
    if profile["drafting"] > 0.0 and sequences > 0:  # `sequences_time` of whole numbers
        time += profile["drafting"] * curve_time(profile, float(sequences))
    time += profile["decode"] * sequences + profile["kv"] * kv
    if prefill > 0 or sequences > profile["graphs"]:
        time += profile["eager"]
    return time


def adapters_time(profile: EngineRow, computing: int, loads: int) -> float:
    """Microseconds that an iteration takes more in which so many LoRA adapters compute, and before which so many are loaded."""
    time = profile["adapter_load"] * loads
    if computing > 0:
        time += profile["adapters"] + profile["adapter"] * computing
    return time


def block_time(first: float, step: float, iterations: int) -> int:
    """Whole microseconds of a block: its first iteration takes `first`, each further one `step` more than the one before."""
    total = iterations * first + 0.5 * step * iterations * (iterations - 1)
    return max(1, int(total + 0.5))


def first_time(profile: EngineRow, context: int, cached: int) -> float:
    """Microseconds from the arrival of a prompt at an idle engine to its first token, `entry` left out."""
    todo = float(context - cached)
    pieces = 1.0
    if profile["chunked"] != 0:
        pieces = float((context - cached - 1) // profile["max_batched"] + 1)
    last = todo - (pieces - 1.0) * profile["max_batched"]
    time = lone_time(profile, last) + pieces * profile["eager"] + 0.5 * profile["attention"] * todo * (context + cached)
    if pieces > 1.0:
        time += (pieces - 1.0) * lone_time(profile, float(profile["max_batched"]))
    return time


def prefill_work(profile: EngineRow, context: int, cached: int) -> float:
    """Microseconds of engine time for prefilling `context` tokens, of which the first `cached` are there, in full iterations.

    All ranks prefill at once.
    """
    todo = float(context - cached)
    return (todo * profile["whole"] + 0.5 * profile["attention"] * todo * (context + cached)) * profile["per_rank"]


def decode_work(profile: EngineRow, context: int, output: float) -> float:
    """Microseconds of engine time for decoding a request that was prefilled elsewhere, with its first token, among its like.

    As much as in `rank_work` on an engine that prefills first, where nothing is to be prefilled: a share of every iteration.
    """
    x, steps = float(context), max(output - 1.0, 0.0) / gain(profile)
    kept = (x + 0.5 * output if profile["evicts"] != 0 else x + output) + profile["drafted"]
    crowd = min(1.0, max(profile["per_sequence"], kept * profile["per_kv"]))
    work = steps * (crowd * decoding_time(profile, 1.0 / crowd) + profile["decode"] + profile["kv"] * (x + 0.5 * output))
    if crowd > profile["per_sequence"] and profile["evicts"] != 0:
        work += max(output - 1.0, 0.0) * profile["whole"]  # as much as is made is lost and computed again
    return work * profile["per_rank"]


def request_work(profile: EngineRow, context: int, cached: int, output: float) -> float:
    """Microseconds of engine time for a request among its like, on an engine as full as its limits and memory allow.

    That is the time of its rank, `rank_work`, while the other ranks do as much.
    """
    return rank_work(profile, context, cached, output) * profile["per_rank"]


def rank_work(profile: EngineRow, context: int, cached: int, output: float) -> float:
    """Microseconds that a rank spends on a request among its like, if all ranks are as full as its limits and memory allow.

    One comes and one goes every `gap` iterations, so that sequences, memory or tokens are used up; each is in the batch for
    `stays` iterations, holds half of its output on average, and is prefilled beside those that decode (or, prefill first,
    before them). Where memory is what limits, contexts grow at the expense of those that came last: as much as is made is lost
    and computed again. An engine that never preempts keeps the whole of every answer free instead, and has fewer together.
    """
    x, todo, steps, budget = float(context), float(context - cached), max(output - 1.0, 0.0), float(profile["max_batched"])
    stays, each = max(output, 1.0), 1.0 + profile["drafted"]
    if profile["drafted"] != 0:
        steps /= gain(profile)
        stays = 1.0 + steps
    held = x + 0.5 * output
    kept = (held if profile["evicts"] != 0 else x + output) + profile["drafted"]
    crowd = min(1.0, max(profile["per_sequence"], kept * profile["per_kv"]))  # one over how many are together
    if crowd > profile["per_sequence"] and profile["evicts"] != 0:
        todo += output  # 50 profiles and lengths: within 6 % of the simulator, where without it 25 % were missing
    own = 0.5 * profile["attention"] * todo * (x + cached) + steps * (profile["decode"] + profile["kv"] * held)
    if profile["mixed"] == 0:
        joining = budget / todo if steps == 0.0 else max(1.0, 1.0 / (crowd * steps))
        tokens = max(todo if profile["chunked"] == 0 else 0.0, min(budget, joining * todo))
        decoding = 0.0 if steps == 0.0 else steps * crowd * decoding_time(profile, 1.0 / crowd)
        return own + decoding + todo / tokens * (curve_time(profile, tokens) + profile["eager"])
    gap = max(stays * crowd, (todo + steps * each) * profile["per_token"])
    decoding = steps / gap
    left = budget - decoding * each
    if todo > left and profile["chunked"] != 0:
        pieces = todo / left
        own += pieces * budget * profile["whole"]
        return own + (gap - pieces) * decoding_time(profile, decoding) if gap > pieces else own
    if gap > 1.0:
        return own + sequences_time(profile, todo, decoding) + profile["eager"] + (gap - 1.0) * decoding_time(profile, decoding)
    return own + gap * (sequences_time(profile, todo / gap, decoding) + profile["eager"])
