"""A manifest's autoscalers as settings: HorizontalPodAutoscaler (autoscaling/v2) and KEDA's ScaledObject.

    found = read_manifest(Path("hpa.yaml"))
    found.strategy, found.changes      # "hpa", ["strategy.hpa={...}"]

Fields that decide how many instances there are become settings; what cannot be played is refused by name. Simulations have one
set of rules for all endpoints, so a file's autoscalers must agree. Read next: `metrics.py`; `base/config/autoscalers.py`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec
import yaml
from msgspec import Struct

from sageserve.base.errors import ConfigError
from sageserve.data.manifests.metrics import NotSimulated, signal_of

_SIZE_MOST: Final = 1 << 20
_QUANTITY: Final = re.compile(r"(\d+(?:\.\d+)?)(m|k|M)?")
_FACTORS: Final = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6}
_Json: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True)
class ReadAutoscaler:
    """What a manifest says.

    Args:
        strategy: which one plays it.
        names: of the objects.
        changes: settings, as `--set` takes them.
    """

    strategy: Literal["hpa", "keda"]
    names: tuple[str, ...]
    changes: tuple[str, ...]


class _Name(Struct):
    name: str = ""


class _Target(Struct):
    type: str = ""
    averageValue: str | float | None = None  # noqa: N815 # Kubernetes' own names
    value: str | float | None = None


class _Metric(Struct):
    metric: _Name = msgspec.field(default_factory=_Name)
    target: _Target = msgspec.field(default_factory=_Target)


class _MetricSpec(Struct):
    type: str = ""
    pods: _Metric | None = None
    external: _Metric | None = None
    resource: _Name | None = None


class _Policy(Struct):
    type: str = ""
    value: int = 1
    periodSeconds: int = 15  # noqa: N815 # as above


class _Rules(Struct):
    stabilizationWindowSeconds: int | None = None  # noqa: N815 # as above
    selectPolicy: str = "Max"  # noqa: N815 # as above
    policies: list[_Policy] = []
    tolerance: str | float | None = None


class _Behaviour(Struct):
    scaleUp: _Rules | None = None  # noqa: N815 # as above
    scaleDown: _Rules | None = None  # noqa: N815 # as above


class _Trigger(Struct):
    type: str = ""
    metadata: dict[str, str | float] = {}
    metricType: str = "AverageValue"  # noqa: N815 # as above


class _OfHpa(Struct):
    behavior: _Behaviour | None = None


class _Advanced(Struct):
    horizontalPodAutoscalerConfig: _OfHpa | None = None  # noqa: N815 # as above
    scalingModifiers: _Json = {}  # noqa: N815 # as above


class _Spec(Struct):
    minReplicas: int | None = None  # noqa: N815 # as above
    maxReplicas: int | None = None  # noqa: N815 # as above
    metrics: list[_MetricSpec] = []
    behavior: _Behaviour | None = None
    minReplicaCount: int | None = None  # noqa: N815 # as above
    maxReplicaCount: int | None = None  # noqa: N815 # as above
    pollingInterval: int | None = None  # noqa: N815 # as above
    cooldownPeriod: int | None = None  # noqa: N815 # as above
    triggers: list[_Trigger] = []
    advanced: _Advanced | None = None
    idleReplicaCount: int | None = None  # noqa: N815 # as above
    fallback: _Json = {}


class _Metadata(_Name):
    annotations: dict[str, str] = {}


class _Object(Struct):
    kind: str = ""
    apiVersion: str = ""  # noqa: N815 # as above
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


def read_manifest(path: Path) -> ReadAutoscaler:
    """Read a file.

    Raises:
        ConfigError: it cannot be read, holds no autoscaler, holds several that differ, or one that cannot be played.
    """
    found: dict[str, tuple[Literal["hpa", "keda"], _Json]] = {}
    for one in _objects(path):
        if one.kind == "HorizontalPodAutoscaler":
            found[f"HorizontalPodAutoscaler {one.metadata.name}"] = "hpa", _hpa(one, path)
        elif one.kind == "ScaledObject":
            found[f"ScaledObject {one.metadata.name}"] = "keda", _keda(one, path)
    if not found:
        raise ConfigError(
            f"{path} holds no HorizontalPodAutoscaler and no ScaledObject",
            hint="`kubectl get hpa,scaledobject -A -o yaml` shows those of a cluster",
        )
    names = tuple(found)
    first = found[names[0]]
    other = next((name for name in names if found[name] != first), None)
    if other is not None:
        raise ConfigError(
            f"{path}: {names[0]} and {other} have different rules, and a simulation has one set for all endpoints",
            hint="give one file of rules, and play the other in a backtest of its own",
        )
    strategy, settings = first
    return ReadAutoscaler(strategy, names, (f"strategy.{strategy}={msgspec.json.encode(settings).decode()}",))


def _objects(path: Path) -> Iterator[_Object]:
    try:
        text = path.read_bytes()
        if len(text) > _SIZE_MOST:
            raise ConfigError(f"{path} is larger than 1 MiB: no manifest is", hint="give the autoscaler's own file")
        documents = [one for one in yaml.safe_load_all(text) if isinstance(one, dict)]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="kubectl get hpa,scaledobject -o yaml > FILE") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is no YAML: {str(error).splitlines()[0]}", hint="kubectl get hpa,scaledobject -o yaml > FILE"
        ) from None
    for document in documents:
        items = document.get("items") if document.get("kind") == "List" else [document]
        for one in items if isinstance(items, list) else []:
            if not isinstance(one, dict) or one.get("kind") not in ("HorizontalPodAutoscaler", "ScaledObject"):
                continue
            try:
                yield msgspec.convert(one, _Object, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{path}: {one.get('kind')}: {error}", hint="does `kubectl apply` take it?") from None


def _hpa(one: _Object, path: Path) -> _Json:
    who = f"{path}: HorizontalPodAutoscaler {one.metadata.name}"
    if not one.apiVersion.startswith("autoscaling/v2"):
        raise ConfigError(f"{who} is of {one.apiVersion or 'no version'}: autoscaling/v2 is read", hint="kubectl convert -f FILE")
    metrics: list[_Json] = []
    for metric in one.spec.metrics:
        spec, kind = (metric.pods, "pods") if metric.type == "Pods" else (metric.external, "external")
        if metric.type == "Resource":
            name = metric.resource.name if metric.resource is not None else "a resource"
            raise _refused(who, name, "processor and memory say nothing of an engine's load, and no simulation shows them")
        if metric.type not in ("Pods", "External") or spec is None:
            raise _refused(who, f"a metric of type {metric.type or '?'}", "Pods and External are simulated")
        if spec.target.type != "AverageValue" or spec.target.averageValue is None:
            reason = "a total against a fixed value does not fall when instances are added; AverageValue is simulated"
            raise _refused(who, spec.metric.name, reason)
        try:
            signal, _ = signal_of(_colons(spec.metric.name))
        except NotSimulated as error:
            raise _refused(who, spec.metric.name, str(error)) from None
        metrics.append({"signal": signal, "target": _quantity(spec.target.averageValue, who), "kind": kind})
    if not metrics:
        raise _refused(who, "processor use, which it scales on without metrics,", "it says nothing of an engine's load")
    return {"metrics": metrics, **_bounds(one.spec.minReplicas, one.spec.maxReplicas), **_behaviour(one.spec.behavior, who)}


def _keda(one: _Object, path: Path) -> _Json:
    who = f"{path}: ScaledObject {one.metadata.name}"
    _refuse_rest(one, who)
    metrics: list[_Json] = []
    activation = 0.0
    for trigger in one.spec.triggers:
        if trigger.type != "prometheus":
            raise _refused(who, f"a trigger of type {trigger.type or '?'}", "prometheus is simulated")
        query = str(trigger.metadata.get("query", ""))
        try:
            signal, gathered = signal_of(query)
        except NotSimulated as error:
            raise _refused(who, f"the query {query!r}", str(error)) from None
        if (gathered, trigger.metricType) not in {("sum", "AverageValue"), ("mean", "Value")}:
            reason = {
                "mean": "with metricType AverageValue a mean is divided by the instances once more",
                "sum": f"with metricType {trigger.metricType} a total does not fall when instances are added",
            }[gathered]
            raise _refused(who, f"the query {query!r}", reason)
        target = _quantity(trigger.metadata.get("threshold", ""), who)
        metrics.append({"signal": signal, "target": target, "kind": "external" if gathered == "sum" else "pods"})
        activation = max(activation, _quantity(trigger.metadata.get("activationThreshold", 0), who))
    if not metrics:
        raise _refused(who, "no trigger", "one of type prometheus is simulated")
    spec = one.spec
    config = spec.advanced.horizontalPodAutoscalerConfig if spec.advanced is not None else None
    found: _Json = {"metrics": metrics, "activation": activation, **_bounds(spec.minReplicaCount, spec.maxReplicaCount)}
    found |= {} if spec.pollingInterval is None else {"polling": f"{spec.pollingInterval}s"}
    found |= {} if spec.cooldownPeriod is None else {"cooldown": f"{spec.cooldownPeriod}s"}
    return found | _behaviour(config.behavior if config is not None else None, who)


def _refuse_rest(one: _Object, who: str) -> None:
    """Fields of a ScaledObject that say how many instances there are, and have no setting."""
    paused = next((name for name in one.metadata.annotations if name.startswith("autoscaling.keda.sh/paused")), None)
    if paused is not None:
        raise _refused(who, f"the annotation {paused}", "who is paused does not scale, or not in one direction")
    if one.spec.idleReplicaCount is not None:
        raise _refused(
            who, "idleReplicaCount", "instances fall to minReplicaCount when nothing is to do, and not to another count"
        )
    if one.spec.fallback:
        raise _refused(who, "fallback", "metrics never fail in a simulation")
    if one.spec.advanced is not None and one.spec.advanced.scalingModifiers:
        raise _refused(who, "advanced.scalingModifiers", "formulas over several triggers are not simulated")


def _bounds(low: int | None, high: int | None) -> _Json:
    return {key: value for key, value in (("minimum", low), ("maximum", high)) if value is not None}


def _behaviour(found: _Behaviour | None, who: str) -> _Json:
    if found is None:
        return {}
    sides = (("scale_up", found.scaleUp), ("scale_down", found.scaleDown))
    return {name: _rules(rules, who) for name, rules in sides if rules is not None}


def _rules(rules: _Rules, who: str) -> _Json:
    found: _Json = {"select": rules.selectPolicy.lower()}
    if rules.stabilizationWindowSeconds is not None:
        found["stabilisation"] = f"{rules.stabilizationWindowSeconds}s"
    if rules.tolerance is not None:
        found["tolerance"] = _quantity(rules.tolerance, who)
    if rules.policies:
        found["policies"] = [
            {_policy_kind(policy, who): policy.value, "period": f"{policy.periodSeconds}s"} for policy in rules.policies
        ]
    return found


def _policy_kind(policy: _Policy, who: str) -> str:
    if policy.type not in ("Pods", "Percent"):
        raise _refused(who, f"a policy of type {policy.type or '?'}", "Pods and Percent are Kubernetes' own")
    return policy.type.lower()


def _colons(name: str) -> str:
    """Adapters write `vllm_num_requests_waiting` for `vllm:num_requests_waiting`."""
    return re.sub(r"^(vllm|sglang|llamacpp)_", r"\1:", name)


def _quantity(text: str | float, who: str) -> float:
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ConfigError(f"{who}: {text!r} is no quantity", hint="write 10, 0.8 or 800m")
    return float(match[1]) * _FACTORS[match[2] or ""]


def _refused(who: str, what: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{who}: {what} cannot be played: {reason}",
        hint="leave --autoscaler out, or play strategy.hpa or strategy.keda with settings of your own",
    )
