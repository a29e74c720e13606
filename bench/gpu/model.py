"""A decoder-only transformer with random weights: what every engine computes in a step, and nothing else.

Matrix products are torch's, everything between them a Triton kernel. Knows no scheduler. Read next: `machine.py`.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
import triton

from bench.gpu import kernels
from bench.gpu.kernels import SPLIT
from bench.gpu.shapes import PAGE, Limits, Shape

QUERIES: Final = 64  # tokens of a prompt that one program of attention takes
_LOG2E: Final = 1.4426950408889634  # the kernels' exponentials are powers of two
_BACK: Final = 0.001  # of weights that lead back to the residual stream
_CHUNK: Final = 512  # choices of experts that are looked at at once


@dataclass(slots=True)
class Inputs:
    """What a step is told, on the device.

    Args:
        ids: int32[t], tokens; negative: made from the last one of the sequence.
        rows: int32[t], row of the page table per token.
        position: int32[t].
        lengths: int32[n], of the sequences of the first n tokens, with those; 0: it does not decode.
        pieces: int32[b, 4], blocks of prompts as `kernels.prefill` wants them.
        ends: int32[k], tokens of which the next one is wanted.
        targets: int32[k], rows that the next ones are kept in.
    """

    ids: Any
    rows: Any
    position: Any
    lengths: Any
    pieces: Any
    ends: Any
    targets: Any


class Model:
    """Weights and KV cache of a shape on one device."""

    def __init__(self, shape: Shape, limits: Limits, device: str) -> None:
        self.shape, self.limits, self.device = shape, limits, device
        self.dtype = getattr(torch, shape.dtype)
        wide = (shape.heads + 2 * shape.kv_heads) * shape.head
        # a token stays what it is through all layers, and that chooses its experts: else prompts would agree on a few of them
        self.embedding = self._drawn(shape.vocabulary, shape.hidden, spread=1.0)
        self.output = self._drawn(shape.vocabulary, shape.hidden)
        self.layers = [self._layer(wide) for _ in range(shape.layers)]
        self.final = torch.ones(shape.hidden, dtype=self.dtype, device=device)
        self.splits = -(-limits.context // SPLIT)
        self.table_width = -(-limits.context // PAGE)
        # one row more than there are sequences: that of nobody, whose page is the first
        self.table = torch.zeros(limits.sequences + 1, self.table_width, dtype=torch.int32, device=device)
        self.last = torch.zeros(limits.sequences + 1, dtype=torch.int32, device=device)
        parts = limits.sequences * shape.heads * self.splits
        self.part = torch.empty(parts * shape.head, dtype=torch.float32, device=device)
        self.weight = torch.empty(parts, dtype=torch.float32, device=device)
        self.pages = 0
        self.keys: list[Any] = []
        self.values: list[Any] = []

    def _drawn(self, *sizes: int, spread: float = 0.02) -> Any:
        return torch.empty(*sizes, dtype=self.dtype, device=self.device).normal_(0.0, spread)

    def _layer(self, wide: int) -> dict[str, Any]:
        one = self.shape
        found = {
            "before": torch.ones(one.hidden, dtype=self.dtype, device=self.device),
            "after": torch.ones(one.hidden, dtype=self.dtype, device=self.device),
            "qkv": self._drawn(wide, one.hidden),
            "join": self._drawn(one.hidden, one.heads * one.head, spread=_BACK),
        }
        if not one.experts:
            return found | {
                "up": self._drawn(2 * one.inner, one.hidden),
                "down": self._drawn(one.hidden, one.inner, spread=_BACK),
            }
        up = self._drawn(one.experts, 2 * one.inner, one.hidden)
        return found | {
            "up": up,
            "down": self._drawn(one.experts, one.hidden, one.inner, spread=_BACK),
            "router": self._drawn(one.experts, one.hidden),
        }

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token in the cache."""
        return 2 * self.shape.layers * self.shape.kv_heads * self.shape.head * int(self.embedding.element_size())

    def take_cache(self, tokens: int) -> None:
        """Take memory for so many KV tokens, and a page for nobody."""
        self.pages = tokens // PAGE
        size = (self.pages + 1) * PAGE * self.shape.kv_heads * self.shape.head
        for held in (self.keys, self.values):
            held[:] = [torch.zeros(size, dtype=self.dtype, device=self.device) for _ in range(self.shape.layers)]

    def forward(self, inputs: Inputs) -> Any:
        """int32[k]: the next tokens, which are kept in `last` as well."""
        found = torch.argmax(self.scores(inputs), -1).to(torch.int32)
        self.last[inputs.targets] = found
        return found

    def scores(self, inputs: Inputs) -> Any:
        """float[k, vocabulary]: how likely each token is the next one."""
        one = self.shape
        # no two sequences may say the same: tokens that differ choose experts that differ
        made = (self.last[inputs.rows] * 31 + inputs.position + inputs.rows * 7919) % one.vocabulary
        ids = torch.where(inputs.ids < 0, made, inputs.ids)
        residual = torch.nn.functional.embedding(ids, self.embedding)
        x = residual
        for number, layer in enumerate(self.layers):
            x = self._norm(x, residual, layer["before"], add=number > 0)
            x = self._attend(self._linear(x, number, "qkv"), number, inputs)
            x = self._norm(self._linear(x, number, "join"), residual, layer["after"], add=True)
            x = self._experts(x, layer) if one.experts else self._dense(x, number)
        x = self._norm(x, residual, self.final, add=True)
        return torch.nn.functional.linear(x[inputs.ends], self.output)

    def _norm(self, x: Any, residual: Any, weight: Any, *, add: bool) -> Any:
        width = self.shape.hidden
        out = torch.empty_like(x)
        kernels.norm[(len(x),)](x, residual, weight, out, WIDTH=width, ADD=add, BLOCK=triton.next_power_of_2(width))
        return out

    def _attend(self, qkv: Any, number: int, inputs: Inputs) -> Any:
        one, tokens, n = self.shape, len(qkv), len(inputs.lengths)
        query = torch.empty(tokens, one.heads * one.head, dtype=self.dtype, device=self.device)
        out = torch.zeros_like(query)
        keys, values = self.keys[number], self.values[number]
        sizes: dict[str, Any] = {
            "HEADS": one.heads,
            "KV_HEADS": one.kv_heads,
            "D": one.head,
            "PAGE_": PAGE,
            "TABLE": self.table_width,
        }
        grid = (tokens, one.heads + 2 * one.kv_heads)
        kernels.rotate[grid](qkv, query, keys, values, inputs.rows, inputs.position, self.table, **sizes)
        scale = one.head**-0.5 * _LOG2E
        if n:
            kernels.decode[(n, one.kv_heads, self.splits)](
                query,
                keys,
                values,
                inputs.rows,
                inputs.lengths,
                self.table,
                self.part,
                self.weight,
                scale,
                GROUP=max(16, one.heads // one.kv_heads),
                SPLITS=self.splits,
                SPLIT_=SPLIT,
                BLOCK=64,
                **sizes,
            )
            kernels.combine[(n, one.heads)](
                self.part,
                self.weight,
                inputs.lengths,
                out,
                HEADS=one.heads,
                D=one.head,
                SPLITS=self.splits,
                SPLIT_=SPLIT,
                PADDED=triton.next_power_of_2(self.splits),
            )
        if len(inputs.pieces):
            kernels.prefill[(len(inputs.pieces), one.heads)](
                query,
                keys,
                values,
                out,
                inputs.pieces,
                self.table,
                scale,
                BLOCK_M=QUERIES,
                BLOCK=64,
                **sizes,
                num_warps=4,
                num_stages=3,
            )
        return out

    def _gate(self, x: Any) -> Any:
        width = self.shape.inner
        out = torch.empty(len(x), width, dtype=self.dtype, device=self.device)
        kernels.gate[(len(x), -(-width // 1024))](x, out, WIDTH=width, BLOCK=1024)
        return out

    def _linear(self, x: Any, number: int, name: str) -> Any:
        """Times a matrix of a layer."""
        return torch.nn.functional.linear(x, self.layers[number][name])

    def _dense(self, x: Any, number: int) -> Any:
        return self._linear(self._gate(self._linear(x, number, "up")), number, "down")

    def _experts(self, x: Any, layer: dict[str, Any]) -> Any:
        one, tokens = self.shape, len(x)
        wanted = torch.softmax(torch.nn.functional.linear(x, layer["router"]).float(), -1)
        by, chosen = torch.topk(wanted, one.chosen, dim=-1)
        by = (by / by.sum(-1, keepdim=True)).reshape(-1)
        chosen, total = chosen.to(torch.int32).reshape(-1), tokens * one.chosen
        rows = 16 if total <= 16 * one.experts else 32 if total <= 48 * one.experts else 64
        blocks, *placed = placed_by(chosen, one.experts, rows)
        wide, deep = (128, 64) if rows == 64 else (64, 128)
        tiles: dict[str, Any] = {"BLOCK_M": rows, "BLOCK_N": wide, "BLOCK_K": deep, "num_stages": 3, "num_warps": 4}
        sizes: dict[str, Any] = {"WIDTH": 2 * one.inner, "DEPTH": one.hidden, "PER": one.chosen, "SCALED": False}
        up = torch.empty(total, 2 * one.inner, dtype=self.dtype, device=self.device)
        kernels.grouped[(blocks, -(-2 * one.inner // wide))](x, layer["up"], up, *placed, by, total, **sizes, **tiles)
        sizes = {"WIDTH": one.hidden, "DEPTH": one.inner, "PER": 1, "SCALED": True}
        down = torch.empty(total, one.hidden, dtype=self.dtype, device=self.device)
        kernels.grouped[(blocks, -(-one.hidden // wide))](
            self._gate(up), layer["down"], down, *placed, by, total, **sizes, **tiles
        )
        return down.view(tokens, one.chosen, one.hidden).sum(1)


def placed_by(chosen: Any, owners: int, rows: int) -> tuple[int, Any, Any, Any]:
    """Sort tokens by whose they are, of `owners`; negative: nobody's.

    Returns:
        The most blocks of so many rows there can be; tokens sorted, each owner's padded to blocks; whose each block is; how many
        there are.
    """
    total = len(chosen)
    blocks = min(owners, total) + total // rows
    whole: dict[str, Any] = {"dtype": torch.int32, "device": chosen.device}
    counts, used = torch.empty(owners, **whole), torch.empty(1, **whole)
    order, owner = torch.empty(blocks * rows, **whole), torch.empty(blocks, **whole)
    kernels.count[(owners,)](chosen, counts, total, BLOCK=_CHUNK)
    sizes: dict[str, Any] = {"EXPERTS": owners, "PADDED": triton.next_power_of_2(owners)}
    kernels.place[(owners,)](chosen, counts, order, owner, used, total, BLOCK_M=rows, BLOCK=_CHUNK, **sizes)
    return blocks, order, owner, used
