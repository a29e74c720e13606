"""Manifests of autoscalers: what they say becomes settings that simulations play, and what cannot be played is refused by name.

Read next: `src/sageserve/data/manifests/read.py`.
"""

from pathlib import Path

import pytest

from sageserve.base.config import HpaPolicySettings
from sageserve.base.errors import ConfigError
from sageserve.base.units import MINUTE, SECOND
from sageserve.data.manifests.metrics import NotSimulated, signal_of
from sageserve.data.manifests.read import read_manifest
from sageserve.data.scenarios.load import load_scenario

HPA = """
apiVersion: v1
kind: Service
metadata: {name: chat}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: chat}
spec:
  scaleTargetRef: {kind: Deployment, name: chat}
  minReplicas: 3
  maxReplicas: 12
  metrics:
    - type: Pods
      pods: {metric: {name: vllm_num_requests_waiting}, target: {type: AverageValue, averageValue: "2500m"}}
  behavior:
    scaleDown:
      stabilizationWindowSeconds: 600
      selectPolicy: Min
      policies: [{type: Percent, value: 10, periodSeconds: 60}, {type: Pods, value: 2, periodSeconds: 30}]
"""
KEDA = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: chat}
spec:
  scaleTargetRef: {name: chat}
  minReplicaCount: 1
  maxReplicaCount: 8
  pollingInterval: 10
  cooldownPeriod: 120
  triggers:
    - type: prometheus
      metadata: {serverAddress: "http://p", query: QUERY, threshold: "8", activationThreshold: "1"}
      metricType: TYPE
"""
PAUSED = "metadata: {name: chat, annotations: {autoscaling.keda.sh/paused-replicas: '0'}}"
SUM = 'sum(vllm:num_requests_running{model_name="m"}) + sum(vllm:num_requests_waiting{model_name="m"})'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(text, "utf-8")
    return path


def keda(query: str = SUM, kind: str = "AverageValue") -> str:
    return KEDA.replace("QUERY", "'" + query + "'").replace("TYPE", kind)


def test_an_hpa_becomes_settings(tmp_path: Path) -> None:
    found = read_manifest(written(tmp_path, HPA))
    assert (found.strategy, found.names) == ("hpa", ("HorizontalPodAutoscaler chat",))
    rules = load_scenario("quickstart", overrides=found.changes).strategy.hpa
    assert [(one.signal, one.target, one.kind) for one in rules.metrics] == [("waiting", 2.5, "pods")]
    assert (rules.minimum, rules.maximum) == (3, 12)
    assert (rules.scale_down.stabilisation, rules.scale_down.select) == (10 * MINUTE, "min")
    assert rules.scale_down.policies == (
        HpaPolicySettings(percent=10, period="60s"),  # type: ignore[arg-type] # as in a file
        HpaPolicySettings(pods=2, period="30s"),  # type: ignore[arg-type] # as above
    )
    assert rules.scale_up.stabilisation == 0, "what is not said stays Kubernetes' own"


def test_a_scaled_object_becomes_settings(tmp_path: Path) -> None:
    found = read_manifest(written(tmp_path, keda()))
    assert found.strategy == "keda"
    rules = load_scenario("quickstart", overrides=found.changes).strategy.keda
    assert [(one.signal, one.target, one.kind) for one in rules.metrics] == [("requests", 8.0, "external")]
    assert (rules.minimum, rules.maximum, rules.activation) == (1, 8, 1.0)
    assert (rules.polling, rules.cooldown) == (10 * SECOND, 120 * SECOND)


def test_a_mean_with_value_is_kubernetes_ratio(tmp_path: Path) -> None:
    found = read_manifest(written(tmp_path, keda("avg(vllm:gpu_cache_usage_perc)", "Value")))
    rules = load_scenario("quickstart", overrides=found.changes).strategy.keda
    assert [(one.signal, one.kind) for one in rules.metrics] == [("kv", "pods")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("vllm:num_requests_waiting", ("waiting", "sum")),
        ("sum by (pod) (sglang:num_queue_reqs{a='b'})", ("waiting", "sum")),
        ("sum(vllm:num_requests_running + vllm:num_requests_waiting)", ("requests", "sum")),
        ("avg(vllm:kv_cache_usage_perc)", ("kv", "mean")),
    ],
)
def test_queries_that_are_a_signal(query: str, found: tuple[str, str]) -> None:
    assert signal_of(query) == found


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sum(rate(vllm:request_success_total[1m]))", "rate"),
        ("avg_over_time(vllm:num_requests_waiting[5m])", "window"),
        ("histogram_quantile(0.9, vllm:time_to_first_token_seconds_bucket)", "quantiles"),
        ("sum(vllm:num_requests_running)", "stops growing"),
        ("avg(DCGM_FI_DEV_GPU_UTIL)", "how busy a GPU is"),
        ("sum(my_queue_length)", "my_queue_length is no metric of an engine"),
        ("sum(vllm:num_requests_waiting) / 2", "neither a metric"),
        ("max(vllm:num_requests_waiting)", "fullest instance"),
    ],
)
def test_queries_that_no_simulation_shows_are_refused_with_the_reason(query: str, reason: str) -> None:
    with pytest.raises(NotSimulated, match=reason):
        signal_of(query)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HPA.replace("type: Pods\n", "type: Resource\n      resource: {name: cpu}\n"), "cpu cannot be played"),
        (HPA.replace("autoscaling/v2", "autoscaling/v1"), "autoscaling/v2 is read"),
        (HPA.replace("2500m", "many"), "'many' is no quantity"),
        (
            HPA + "---" + HPA.split("---")[1].replace("name: chat}", "name: other}").replace("maxReplicas: 12", "maxReplicas: 9"),
            "differ",
        ),
        (keda(kind="Value"), "a total does not fall"),
        (keda("avg(vllm:num_requests_waiting)"), "divided by the instances once more"),
        (keda().replace("type: prometheus", "type: cron"), "a trigger of type cron"),
        (keda().replace("metadata: {name: chat}", PAUSED), "the annotation autoscaling.keda.sh/paused-replicas"),
        (keda() + "  idleReplicaCount: 0\n", "idleReplicaCount cannot be played"),
        (keda() + "  fallback: {failureThreshold: 3, replicas: 6}\n", "fallback cannot be played"),
        (
            keda() + "  advanced: {scalingModifiers: {formula: a + b, target: '2'}}\n",
            "advanced.scalingModifiers cannot be played",
        ),
        (HPA.replace("type: Percent", "type: percentage"), "a policy of type percentage"),
        ("kind: Deployment\n", "holds no HorizontalPodAutoscaler"),
        ("a: [", "is no YAML"),
        (HPA.replace("minReplicas: 3", "minReplicas: [3]"), "HorizontalPodAutoscaler: "),
    ],
)
def test_what_cannot_be_played_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_manifest(written(tmp_path, text))
