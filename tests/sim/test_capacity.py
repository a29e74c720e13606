"""What a profile is expected to do is what the simulator makes of it: engine time per request on an engine that is full.

Read next: docs/reference/kernel.md, "Work".
"""

import numpy as np
import pytest

from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.core.engine.timing import request_work, row_of
from sageserve.data.profiles.library import profile_named
from sageserve.data.profiles.speed import MISSES, OUTPUT, PROMPT, speed
from sageserve.sim.replay import Arrivals, replay, replay_closed

CLIENTS = 512  # twice as many as an engine takes: its queue is never empty


@pytest.mark.parametrize(
    "name",
    [
        "llama-2-70b/h100-80gb/tp8",
        "llama-3.1-8b/h100-80gb/tp1",
        "llama-3.1-8b/rtx-4090/tp1",  # memory holds 36
        "gpt-oss-120b/h100-80gb/tp1",  # memory holds 228 of 256
        "llama-3.1-70b/h100-80gb/tp2",  # memory holds 24
        "bloom-176b/h100-80gb/tp8",
    ],
)
@pytest.mark.parametrize(("prompt", "output"), [(1000, 300), (200, 800), (4000, 100), (1000, 20)])
def test_work_is_what_a_full_engine_takes(name: str, prompt: int, output: int) -> None:
    profile = profile_named(name).profile
    together = min(profile.max_sequences, profile.kv_tokens / (prompt + output / 2))
    n = int(max(6 * together, 400)) + 2 * CLIENTS
    random = stream(1, f"tests/capacity/{name}")
    prompts = random.integers(prompt // 2, prompt + prompt // 2, n)
    outputs = random.integers(output // 2, output + output // 2 + 1, n)
    played = replay_closed(profile, prompts, outputs, CLIENTS)
    finish = np.sort(played.finish)
    quarter = n // 4
    took = (finish[3 * quarter] - finish[quarter]) / (2 * quarter)
    assert request_work(row_of(profile), prompt, 0, float(output)) == pytest.approx(took, rel=0.07)


@pytest.mark.parametrize(
    "name", ["llama-3.1-70b/h100-80gb/tp2", "llama-3.1-8b/h100-80gb/tp1", "gpt-oss-120b/h200/tp2"]
)  # 22 together, 256 of little prefill, a mixture
def test_what_a_profile_is_shown_to_sustain_is_what_the_simulator_sustains(name: str) -> None:
    profile = profile_named(name).profile
    rate = speed(profile).requests_per_s
    early, lengths = stream(1, f"tests/sustained/{name}").exponential(1.0, 4_000), np.ones(4_000, np.int64)
    shares = []
    for times in (0.93, 1.07):
        arrival = np.cumsum(early * SECOND / (times * rate)).astype(np.int64)
        played = replay(profile, Arrivals(arrival, PROMPT * lengths, OUTPUT * lengths))
        shares.append(float((played.ttft[400:] > SECOND).mean()))
    assert shares[0] < MISSES < shares[1]
