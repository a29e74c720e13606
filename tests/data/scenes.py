"""A small scenario for tests of traces and generated workloads, built in code so that no file is involved.

Read next: `tests/data/traces/test_read.py`, `tests/data/workload/test_generate.py`.
"""

from sageserve.base.config import Scenario
from sageserve.base.config.traffic import AssignSettings, GeneratorSettings, WorkloadSettings

ENGINE = {
    "gpu": "h100",
    "tp": 8,
    "gpus": 8,
    "iteration_ms": [[1, 5.0], [10_001, 305.0]],
    "decode_us_per_sequence": 10.0,
    "kv_ns_per_token": 10.0,
    "attention_ns_per_token2": 1.0,
    "kv_tokens": 500_000,
    "source": "made up for tests",
}

REGION = {"gpus": {"h100": {"gpus": 80, "price": {"on_demand": "98.32/h"}}}}


def scenario(*, assign: AssignSettings | None = None, generate: GeneratorSettings | None = None, seed: int = 1) -> Scenario:
    """Two models (one with a short context), two regions, the paper's three tiers."""
    plain = Scenario.model_validate(
        {
            "name": "small",
            "seed": seed,
            "gpus": {"h100": {"memory": "80GiB"}},
            "regions": {"east": {**REGION, "rtt": {"west": "70ms"}}, "west": REGION},
            "models": {
                "big": {"context": 131_072, "engines": {"h100": ENGINE}},
                "small": {"context": 4_096, "engines": {"h100": ENGINE}},
            },
            "tiers": {
                "iw-f": {"ttft": "1s"},
                "iw-n": {"ttft": "60s"},
                "niw": {"deadline": "24h"},
            },
        }
    )
    workload = WorkloadSettings(assign=assign or AssignSettings(), generate=generate or GeneratorSettings())
    return plain.model_copy(update={"workload": workload})
