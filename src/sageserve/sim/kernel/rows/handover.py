"""Arrays of prompts that are prefilled in one place and decoded in another. Read next: `sim/kernel/apart/sending.py`."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import ConfigError
from sageserve.base.records import UNSET
from sageserve.core.handover import Handover

WHOLE: Final = 0  # what an instance does: all of a request
PREFILLS: Final = 1  # prompts, and hands requests over
DECODES: Final = 2  # what it is handed

HANDOVER_COUNTS: Final = ("hands", "handed")
HANDOVER_ARRAYS: Final = ("does", "source", "landing", "link", "sending", "sent_token", "sent_latency")


def handover_arrays(told: Handover | None, engines: NDArray[Any], roles: int, rows: int) -> dict[str, NDArray[Any]]:
    """What handing over needs; next to nothing where nobody does.

    Args:
        told: of the models; None: none is served by two pools.
        engines: ENGINE rows.
        roles: of each model.
        rows: number of requests.
    """
    units, requests = (len(engines), rows) if told else (1, 1)
    does = np.full(units, WHOLE, np.int32)
    if told:
        apart = np.array(told.apart)[engines["model"]]
        does[apart] = np.where(engines["endpoint"][apart] % roles == 0, PREFILLS, DECODES)
    return {
        "does": does,
        "source": np.full(requests, UNSET, np.int32),  # the rank that keeps the KV cache of a request, until it is let in
        "landing": np.zeros(requests, np.int64),
        "link": np.zeros(units, np.int64),  # when that of a rank is free
        "sending": np.full(2 * units, UNSET, np.int32),  # the first and the last request on the way, by rank
        "sent_token": np.array(told.token_us if told else (0.0,), np.float64),
        "sent_latency": np.array(told.latency if told else (0,), np.int64),
    }


def refuse_talk(told: Handover | None, caches: tuple[bool, ...]) -> None:
    """Say that what prompts share cannot be played where they are prefilled apart, unless nothing of it is kept.

    Args:
        told: of the models; None: none is served by two pools.
        caches: whether engines of a model have a prefix cache; empty: all do.

    Raises:
        ConfigError: engines that are handed over to have one.
    """
    if told and any(apart and (not caches or caches[m]) for m, apart in enumerate(told.apart)):
        raise ConfigError(
            "prompts that share beginnings, and turns that wait for answers, are not played where prefill and decode are apart:"
            " what a prefill instance keeps of earlier prompts is not modelled",
            hint="say that it has no prefix cache, with --set models.NAME.prefix_cache=false, or say what is found per request"
            " (column cached_tokens) in a trace without block hashes, with --set workload.loop=open",
        )
