"""Cases in which models with two roles are prefilled in one and decoded in the other.

Read next: `cases.py`, which draws the rest.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sageserve.base.records import UNSET
from sageserve.core.handover import Handover
from sageserve.sim.kernel.state import Setup


def with_handover(draw: Callable[[int, int], int], setup: Setup, grain: int, *, talks: bool) -> Setup:
    """In half of the worlds with two roles some models, or all, are handed over; where prompts share beginnings nothing is kept.

    Args:
        draw: as in `cases.py`.
        setup: the world.
        grain: what times are multiples of.
        talks: whether prompts are turns or hashed.
    """
    if setup.roles < 2 or draw(0, 1):
        return setup
    apart = tuple(draw(0, 3) > 0 for _ in range(setup.models))
    token_us = tuple(float(draw(0, 40) * grain if draw(0, 2) and handed else 0) for handed in apart)
    latency = tuple(draw(0, 3_000) // grain * grain if draw(0, 1) and handed else 0 for handed in apart)
    caches = setup.caches or (True,) * setup.models
    if talks:
        caches = tuple(kept and not handed for kept, handed in zip(caches, apart, strict=True))
    walk, feeds = setup.walk.copy(), setup.feeds.copy()
    for g, m, k in np.ndindex(walk.shape[:3]):
        if apart[m]:
            ends = list(dict.fromkeys(e // setup.roles * setup.roles for e in walk[g, m, k].tolist() if e >= 0))
            walk[g, m, k] = [*ends, *[UNSET] * (walk.shape[3] - len(ends))]
    decodes = np.arange(setup.endpoints) % setup.roles != 0
    feeds[decodes & np.array(apart)[np.arange(setup.endpoints) // setup.roles % setup.models]] = False
    return replace(setup, walk=walk, feeds=feeds, caches=caches, handover=Handover(apart, token_us, latency))
