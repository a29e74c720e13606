"""Profiles against the engines that run, promises against physics, and the gate of batch work. Read next: `facts.py`."""

import re
from collections.abc import Iterator
from typing import Final

from sageserve.base.config import ProfileSettings
from sageserve.base.units import show_duration
from sageserve.data.scenarios.checks import first_token_us
from sageserve.live.doctor.checks import CheckFinding
from sageserve.live.doctor.facts import ClusterFacts, DoctorTarget
from sageserve.live.doctor.pods import argument, template
from sageserve.live.prometheus import queries
from sageserve.live.prometheus.server import NotSeen

APART: Final = 0.1  # share by which KV capacity may differ: memory use differs a little from start to start
_VERSION: Final = re.compile(r"(?:v|vllm[ :/-]?v?)(\d+\.\d+)", re.IGNORECASE)
_OPEN_GATE: Final = re.compile(r"""gate[-_]?type["']?\s*[:=]\s*["']?redis["']?\s*(?:$|[,}\n])""", re.IGNORECASE | re.MULTILINE)
_OLD_EPP: Final = re.compile(r"\b(?:inference_extension|inference_pool|inference_objective|inference_model)_\w+")
_LIMITS: Final = (
    ("--max-num-seqs", "max_sequences"),
    ("--max-num-batched-tokens", "max_batched_tokens"),
    ("--tensor-parallel-size", "tp"),
)


def profile_age(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """The profile is of this engine."""
    for target in facts.targets:
        profile = facts.scenario.models[target.model].engines[target.gpu]
        differs = next((said for said in _differences(facts, target, profile)), "")
        if differs:
            url = f"http://{target.object_name}.{target.namespace}:8000"
            yield CheckFinding(target.name, differs, f"sageserve calibrate benchmark {url} --out {target.model}.yaml", "warn")


def _differences(facts: ClusterFacts, target: DoctorTarget, profile: ProfileSettings) -> Iterator[str]:
    found = template(facts, target)
    if found is not None:
        for name, field in _LIMITS:
            told = argument(found[1], name)
            if told.isdigit() and int(told) != getattr(profile, field):
                yield f"the engine runs with {name} {told}, its profile was made with {getattr(profile, field)}"
        image = _VERSION.search(found[1].parts("containers")[0].text("image"))
        measured = _VERSION.search(profile.source)
        if image and measured and image[1] != measured[1]:
            yield f"the engine is version {image[1]}, its profile was measured with {measured[1]}"
    if facts.server is not None:
        yield from _capacity(facts, target, profile)


def _capacity(facts: ClusterFacts, target: DoctorTarget, profile: ProfileSettings) -> Iterator[str]:
    pods = {label: value for label, value in target.label_set().items() if label != "model_name"}
    names = sorted({one.labels["pod"] for one in facts.raw(target) if "pod" in one.labels})
    if not names or facts.server is None:
        return
    matchers = queries.matchers(pods | {"pod": "=~" + "|".join(map(re.escape, names[:20]))})
    found = facts.server.vector(f"vllm:cache_config_info{{{matchers}}}", facts.now_s)
    for one in () if isinstance(found, NotSeen) else found:
        blocks, size = one.labels.get("num_gpu_blocks", ""), one.labels.get("block_size", "")
        if blocks.isdigit() and size.isdigit():
            tokens = int(blocks) * int(size)
            if tokens and abs(profile.kv_tokens / tokens - 1) > APART:
                yield f"the engine has room for {tokens:,} KV tokens, its profile for {profile.kv_tokens:,}"
                return


def promise_feasible(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Each tier has a target that is fast enough when idle."""
    scenario = facts.scenario
    for model in dict.fromkeys(target.model for target in facts.targets):
        mine = [target for target in facts.targets if target.model == model]
        times = {target.name: _idle(scenario.models[model].engines[target.gpu]) for target in mine}
        best = min(times, key=lambda name: times[name])
        for name, tier in scenario.tiers.items():
            if tier.ttft is not None and times[best] > tier.patience_of(1):
                said = f"{name} promises a first token within {show_duration(tier.ttft)}; the fastest idle target of {model}, "
                said += f"{best}, needs {show_duration(times[best])}"
                yield CheckFinding(best, said, f"tiers.{name}.ttft: {show_duration(2 * times[best])}", "error")


def _idle(engine: ProfileSettings) -> int:
    return first_token_us(engine) + round(engine.first_token_ms * 1e3)


def async_gate(facts: ClusterFacts) -> Iterator[CheckFinding]:
    """Without its key, the gate is closed."""
    for space in sorted({target.namespace for target in facts.targets}):
        for config in facts.of("ConfigMap", space):
            if "async" not in config.name:
                continue
            text = "\n".join(config.labels("data").values())
            where = f"ConfigMap {config.name}"
            if _OPEN_GATE.search(text):
                said = f"{where} has gate redis, which is wide open while its key is missing"
                yield CheckFinding(facts.name, said, f"gate_type: redis-leased-rate  # in {where} of {space}", "error")
            elif old := _OLD_EPP.search(text):
                said = f"{where} reads {old[0]}, an old name of the endpoint picker's series"
                yield CheckFinding(facts.name, said, f"llm_d_epp_*  # in {where} of {space}, for {old[0]}", "error")
