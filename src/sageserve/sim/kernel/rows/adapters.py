"""Arrays of LoRA adapters: who asks for which, slots, and who was passed over. Read next: `sim/kernel/adapters/slots.py`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import ModelSettings
from sageserve.base.records import UNSET, Labels, PromptBlocks, Trace

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)  # spreads small numbers over 64 bits

SLOT: Final = np.dtype([("adapter", "i4"), ("users", "i4"), ("used", "i8")], align=True)
"""A slot of an engine; the columns are those of `rules.AdapterSlot`."""

ADAPTED: Final = np.dtype(
    [
        ("in_use", "i4"),  # adapters in the batch
        ("loads", "i4"),  # for the iteration that is composed
        ("clock", "i8"),  # how often one was no longer in the batch
        ("version", "i8"),  # of what was passed over: another after each change of the adapters in the batch
    ],
    align=True,
)
"""What is known of the adapters of a rank."""

ADAPTER_SIZES: Final = ("adapted", "slot_rows")
ADAPTER_ARRAYS: Final = (
    "adapter",  # by request
    "adapter_slots",  # by rank and slot
    "adapter_units",  # by rank
    "passed",  # by request, when it was passed over first, until it is admitted
    "slot_wait",  # by request, us from then until it was
    "last_passed",  # by rank and queue, the last request of those at its front that are passed over
    "passed_version",  # likewise, at which version
    "adapter_loads",  # by endpoint
    "adapter_admitted",  # by endpoint, requests of adapters that were admitted
)


@dataclass(frozen=True, slots=True)
class Adapters:
    """Which adapter each request asks for.

    Args:
        codes: int32[n], in the order of the world's rows; UNSET: the model itself.
    """

    codes: NDArray[np.int32]


def told_of_adapters(labels: Labels | None, rows: NDArray[Any], models: Mapping[str, ModelSettings]) -> tuple[str, ...]:
    """What settings say of adapters that a trace does not have, or the other way round.

    Args:
        labels: adapters of the requests; None: the trace names none.
        rows: REQUEST rows of the same requests, in the same order.
        models: by name, in the order that rows count them.
    """
    theirs = set() if labels is None else set(np.unique(rows["model"][labels.codes != UNSET]).tolist())
    asked = bool(theirs)
    without = [name for m, (name, model) in enumerate(models.items()) if not model.has_adapters and (m in theirs or not asked)]
    if asked and without:
        names = ", ".join(without)
        return (f"{names}: requests for LoRA adapters are played as others; `adapters: {{slots: 8}}` of a model says otherwise",)
    if not asked and len(without) < len(models):
        return ("the trace names no adapters: slots for them take memory, and nobody uses them",)
    return ()


def apart_by_adapter(trace: Trace) -> Trace:
    """The same trace, in which equal prompts of different adapters share no blocks: keys and values are the adapter's."""
    labels = trace.labels.get("adapter")
    if trace.blocks is None or labels is None:
        return trace
    blocks = trace.blocks
    begins = np.concatenate(([0], blocks.ends[:-1]))
    hashed = (blocks.ends > begins) & (labels.codes != UNSET)
    hashes = blocks.hashes.copy()
    hashes[begins[hashed]] ^= (labels.codes[hashed].astype(np.uint64) + np.uint64(1)) * _ODD
    return replace(trace, blocks=PromptBlocks(blocks.ends, hashes, blocks.size))


def adapters_of(labels: Labels | None) -> Adapters | None:
    """The adapters of a trace, in the order of the world's rows; None where it names none."""
    return None if labels is None or not (labels.codes != UNSET).any() else Adapters(np.ascontiguousarray(labels.codes, np.int32))


class AdapterMemory:
    """Columns of a world, as `PrefixMemory` has them; next to nothing where no engine has slots, or nobody asks for an adapter.

    Args:
        told: of the requests; None: nobody asks.
        profiles: PROFILE rows.
        engines: ENGINE rows.
        lanes: queues of each.
        rows: number of requests.
    """

    def __init__(self, told: Adapters | None, profiles: NDArray[Any], engines: NDArray[Any], *, lanes: int, rows: int) -> None:
        most = int(profiles["slots"].max(initial=0))
        here = told is not None and most > 0
        self.sizes = {"adapted": int(here), "slot_rows": most if here else 0}
        units, lanes, rows = (len(engines), lanes, rows) if here else (1, 1, 1)
        endpoints = int(engines["endpoint"].max(initial=0)) + 1
        places = np.zeros(units * max(most if here else 0, 1), SLOT)
        places["adapter"] = UNSET
        codes = told.codes if told is not None and here else np.full(1, UNSET, np.int32)
        self.arrays: dict[str, NDArray[Any]] = {
            "adapter": codes,
            "adapter_slots": places,
            "adapter_units": np.zeros(units, ADAPTED),
            "passed": np.full(rows, UNSET, np.int64),
            "slot_wait": np.zeros(rows, np.int64),
            "last_passed": np.full(units * lanes, UNSET, np.int32),
            "passed_version": np.full(units * lanes, UNSET, np.int64),
            "adapter_loads": np.zeros(endpoints, np.int64),
            "adapter_admitted": np.zeros(endpoints, np.int64),
        }
