"""The engine's front end takes its time once per request: around the first token, and never the engine's.

Read next: docs/reference/latency.md.
"""

from sageserve.sim.results.meter import blocks
from sageserve.sim.run import Run, simulate
from tests.core.small import ENGINE, row, scenario, trace


def played(first_token_ms: float) -> Run:
    models = {
        name: {"context": 8_000, "engines": {"h100": ENGINE | {"first_token_ms": first_token_ms}}} for name in ("big", "small")
    }
    first = row(0, model="small", prompt=7_700, output=2)
    too_long = row(9_000_000, model="small", prompt=40_000, output=2)
    settings = scenario(models=models, fleet={"start": 1, "minimum": 1, "maximum": 1})
    return simulate(settings, trace(settings, [first, too_long, row(1_000), row(1_500, tier="niw")]))


def test_it_is_added_to_first_and_last_token_and_nothing_else() -> None:
    (without,), (found,) = (list(blocks(played(ms))) for ms in (0.0, 26.8))
    served = without.finished
    assert served.sum() == 3
    assert ((found.ttft - without.ttft)[served] == 26_800).all()
    assert ((found.e2e - without.e2e)[served] == 26_800).all()
    assert (found.ttft[~served] == without.ttft[~served]).all()
    assert (found.rows["instance"] == without.rows["instance"]).all()


def test_a_promise_counts_it() -> None:
    run = played(0.0)
    ((first, *_),) = [block.ttft.tolist() for block in blocks(run)]
    spare = (1_000_000 - first) / 1e3
    assert 0 < spare < 1_000
    assert [bool(next(blocks(played(ms))).met[0]) for ms in (spare, spare + 0.001)] == [True, False]
