"""Can a scenario's models be prefilled and decoded on instances of their own? What is missing for it, or does not go with it.

Knows the settings tree only. Read next: `data/scenarios/checks.py`, which asks; docs/how-to/disaggregate.md.
"""

from collections.abc import Iterator

from sageserve.base.config import ModelSettings, Scenario
from sageserve.base.units import show_size
from sageserve.data.scenarios.problem import SettingProblem, unknown
from sageserve.data.yaml_positions import Keys


def apart_names(scenario: Scenario) -> Iterator[SettingProblem]:
    """GPU types of engines that decode which are not defined, or not those of their profiles."""
    for model, served in scenario.models.items():
        keys: Keys = ("models", model, "disaggregated", "decode")
        engines = served.disaggregated.decode if served.disaggregated else {}
        yield from unknown(keys, "GPU type", engines, scenario.gpus)
        for gpu, engine in engines.items():
            if engine.gpu != gpu:
                text = f"the profile is for {engine.gpu!r}, it cannot say how fast {gpu!r} is"
                yield SettingProblem((*keys, gpu), text, arithmetic=False)


def apart_settings(scenario: Scenario) -> Iterator[SettingProblem]:
    """What prefill and decode apart cannot do without, or with."""
    for pool, count in scenario.fleet.starts.items():
        if count == 0 and (side := pool.rpartition("/")[2]) in {"prefill", "decode"}:
            text = f"none to {side} at first: what the other pool does is not done, and nobody asks for one"
            yield SettingProblem(("fleet", "starts", pool), text, hint="at least 1")
    for model, served in scenario.models.items():
        if served.disaggregated is None:
            continue
        keys: Keys = ("models", model, "disaggregated")
        if served.kv_sent is None:
            yield SettingProblem(keys, f"{_unknown_size(served)}: give `kv_per_token: 128KiB` here", arithmetic=False)
        for region in scenario.regions:
            prefill, decode = (scenario.gpus_at(model, region, decode=side) for side in (False, True))
            if bool(prefill) != bool(decode):
                has, lacks = ("prefill", "decode") if prefill else ("decode", "prefill")
                yield SettingProblem(keys, f"{region} has GPUs to {has} and none to {lacks}: both pools are needed there")
            if prefill and scenario.at(region, model).fleet.minimum == 0:
                text = f"a minimum of 0 in {region}: nobody asks a decode pool that sleeps, so that it is never woken"
                yield SettingProblem(keys, text, hint=f"--set fleet.minimum=1, or {region}/{model} in fleet.endpoints")
        for i, rollout in enumerate(scenario.rollouts):
            if rollout.model == model:
                text = f"{model} is prefilled and decoded apart, and a rollout replaces instances that do both"
                yield SettingProblem(("rollouts", i, "model"), text, arithmetic=False)


def _unknown_size(served: ModelSettings) -> str:
    known = {gpu: engine.kv_per_token for gpu, engine in served.engines.items()}
    missing = [gpu for gpu, size in known.items() if size is None]
    if missing:
        return f"a KV cache is sent, and how large it is per token is not known of the engine on {', '.join(missing)}"
    sizes = ", ".join(f"{show_size(size or 0)} on {gpu}" for gpu, size in known.items())
    return f"a KV cache is sent, and its size per token differs: {sizes}"
