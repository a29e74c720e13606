"""A transformer written as it is explained: one sequence at a time, all of its tokens, no cache. Slow, and obvious.

A program, for an interpreter that has torch and Triton: it says how far the kernels' scores are from its own.
"""

import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from bench.gpu.adapters import Adapted, AdaptedDevice, timed
from bench.gpu.loop import Engine, Sequence
from bench.gpu.machine import Device, Form
from bench.gpu.model import Inputs, placed_by
from bench.gpu.shapes import LIMITS, SHAPES


def norm(x: Any) -> Any:
    """RMS norm."""
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def turned(x: Any) -> Any:
    """Heads [t, h, d] turned by the position of their token."""
    tokens, _, width = x.shape
    half = width // 2
    angle = torch.arange(tokens)[:, None, None] * 500_000.0 ** (-torch.arange(half) * 2.0 / width)
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()), -1)


def forward_of(model: Any, ids: list[int]) -> Any:
    """Scores after the last token."""
    one = model.shape
    x = model.embedding[torch.tensor(ids)].float()
    for held in model.layers:
        layer = {name: weights.float() for name, weights in held.items()}
        wide = (norm(x) @ layer["qkv"].T).view(len(ids), -1, one.head)
        query, key, value = wide.split([one.heads, one.kv_heads, one.kv_heads], 1)
        query, key = turned(query), turned(key)
        ratio = one.heads // one.kv_heads
        key, value = key.repeat_interleave(ratio, 1), value.repeat_interleave(ratio, 1)
        score = torch.einsum("ahd,bhd->hab", query, key) * one.head**-0.5
        score = score.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -torch.inf)
        x = x + torch.einsum("hab,bhd->ahd", score.softmax(-1), value).reshape(len(ids), -1) @ layer["join"].T
        x = x + fed(one, layer, norm(x))
    return norm(x)[-1] @ model.output.float().T


def fed(one: Any, layer: dict[str, Any], x: Any) -> Any:
    """The feed-forward layer."""
    if not one.experts:
        up, gated = (x @ layer["up"].T).chunk(2, -1)
        return (torch.nn.functional.silu(up) * gated) @ layer["down"].T
    out = torch.zeros_like(x)
    for t, row in enumerate(x):
        weight, chosen = (row @ layer["router"].T).softmax(-1).topk(one.chosen)
        for share, expert in zip(weight / weight.sum(), chosen, strict=True):
            up, gated = (layer["up"][expert] @ row).chunk(2)
            out[t] += share * (layer["down"][expert] @ (torch.nn.functional.silu(up) * gated))
    return out


class Again:
    """What stands in for a captured graph: the same step, padded to the sizes it would be captured in."""

    def __init__(self, device: Device, form: Form) -> None:
        self.device, self.form = device, form
        self.found = torch.zeros(form.ends, dtype=torch.int32)

    def replay(self) -> None:
        """Compute it."""
        self.found[:] = self.device.model.forward(self.device._inputs(self.form))


def far(name: str, *, padded: bool) -> float:
    """The largest difference of scores over their largest, in steps of all kinds that an engine makes.

    Args:
        name: of a shape; "dense:2" has two layers.
        padded: steps have the sizes of those that would be captured.
    """
    torch.manual_seed(0)
    name, _, layers = name.partition(":")
    shape = SHAPES[name]
    limits = replace(LIMITS[name], kv_tokens=2048)
    device = Device(replace(shape, layers=int(layers or shape.layers)), limits, graphs=False)
    for layer in device.model.layers:
        for weights in layer.values():
            if weights.dim() > 1:
                weights.mul_(8.0)  # so that each layer matters
    if padded:
        stand_ins = [Again(device, form) for form in device._forms()]
        device._graphs = [(one.form, one, one.found) for one in sorted(stand_ins, key=lambda one: one.form.tokens)]
    read: dict[int, list[int]] = {}
    worst = 0.0

    def looked(inputs: Inputs) -> Any:
        nonlocal worst
        model = device.model
        rows, position, ids = inputs.rows.tolist(), inputs.position.tolist(), inputs.ids.tolist()
        last = model.last.clone()
        for token, row in enumerate(rows):
            made = (int(last[row]) * 31 + position[token] + row * 7919) % model.shape.vocabulary
            read.setdefault(row, [])[position[token] :] = [made if ids[token] < 0 else ids[token]]
        scores = scored(inputs)
        for k, (token, row) in enumerate(zip(inputs.ends.tolist(), inputs.targets.tolist(), strict=True)):
            if row == model.limits.sequences:  # nobody's
                continue
            wanted = forward_of(model, read[rows[token]][: position[token] + 1])
            worst = max(worst, float((scores[k].float() - wanted).abs().max() / wanted.abs().max()))
        return scores

    scored = device.model.scores
    device.model.scores = looked  # type: ignore[method-assign] # looks on
    engine = Engine(device, limits)
    engine.waiting.extend(
        Sequence(k, 0, prompt, output) for k, (prompt, output) in enumerate([(5, 4), (90, 3), (1, 6), (33, 2), (530, 2)])
    )
    while engine.busy:
        engine.iterate()
    return worst


def far_adapted(name: str, rank: int) -> float:
    """The same of products of all matrices with adapters: tokens of three, and of none."""
    torch.manual_seed(0)
    device = AdaptedDevice(SHAPES[name], LIMITS[name], 4, rank, graphs=False)
    model = device.model
    assert isinstance(model, Adapted)
    worst = 0.0
    for whose in ([2], [0, -1, 1, 2, 2, -1, 0], [3] * 40 + [-1] * 3 + [1] * 5):
        model._placed = placed_by(torch.tensor(whose, dtype=torch.int32), 4, 16)
        for matrix, pair in model.pairs[1].items():
            weights = model.layers[1][matrix]
            x = torch.randn(len(whose), weights.shape[1])
            wanted = x @ weights.T
            for t, adapter in enumerate(whose):
                if adapter < 0:
                    continue
                edges = [0, *(edge for edge in pair.edges if edge < len(weights)), len(weights)]
                for part, (begin, end) in enumerate(pairwise(edges)):
                    first = pair.first[adapter, part * rank : (part + 1) * rank]
                    wanted[t, begin:end] += pair.second[adapter, begin:end] @ (first @ x[t])
            worst = max(worst, float((model._linear(x, 1, matrix) - wanted).abs().max() / wanted.abs().max()))
    assert timed(device, LIMITS[name], 3, 8, 2) > 0
    return worst


if __name__ == "__main__":
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode():
        for shape in sys.argv[1:]:
            base, _, rank = shape.partition("+")
            if rank:
                print(shape, far_adapted(base, int(rank)), 0.0)
            else:
                print(shape, far(shape, padded=False), far(shape, padded=True))
