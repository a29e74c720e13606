"""Rules as a user writes them, one of each kind and more, for the tests that play them.

Every number is asked for by one of them, so that none can be told wrongly unseen. Read next: `test_own_rules.py`.
"""

import math

FULL = 0.75
WEIGHTS = (1.0, 0.5, 0.25)


def least_full(in_flight: float, sequences: float, queued: float, pace: float, kv_tokens: float) -> float:
    return in_flight / sequences + _slow(queued, pace) - kv_tokens / 1e9


def _slow(tokens: float, pace: float) -> float:
    return pace * math.sqrt(tokens) / 50


def packed(in_flight: float, sequences: float, number: float, found: float, prompt: float, outstanding: float) -> float:
    if in_flight < FULL * sequences:
        return number - min(found, prompt) / 10
    return 1e6 + outstanding


def by_tier(number: float, priority: float, batch: float, in_flight: float) -> float:
    return (number + int(priority) + 2 * batch) % 3 + in_flight * WEIGHTS[int(batch)]


def near_and_free(utilisation: float, away: float, instances: float) -> float:
    return utilisation + away / 50_000 - instances / 100


def calm(busy: float, kv: float, backlog: float, prompt: float, priority: float, batch: float) -> float:
    score = busy + 2 * kv + backlog / (1 + prompt * 1_000)
    for _ in range(int(priority)):
        score *= 1.5
    return -score if batch else score


def strict(wait: float, limit: float, in_flight: float, most: float, priority: float) -> bool:
    return wait <= limit / (1 + priority) and in_flight < most


def generous(wait: float, patience: float, service: float, instances: float, prompt: float, batch: float) -> bool:
    return bool(batch) or wait + service / instances <= 2 * patience + prompt
