"""Who is there, from what a server records: pools, GPUs, gateways and autoscalers; and what it does not know."""

import json
import re

import pytest

from sageserve.base.config.clusters import prometheus_at
from sageserve.base.errors import MeasurementError
from sageserve.base.units import SECOND
from sageserve.data.history.names import EngineKind, FrontKind
from sageserve.data.history.raw import RawSeries, label_matches
from sageserve.live.prometheus.discover import Discovery, FoundScaler, discover, workload_of
from sageserve.live.prometheus.server import PrometheusServer
from tests.data.history.made import BEGIN, STEP, engine, matrix, series
from tests.live.prometheus.stub import Asked, stub

NOW = BEGIN + 8 * STEP + SECOND
Rows = list[tuple[dict[str, str], float]]


def pods(name: str, model: str, count: int) -> list[RawSeries]:
    return [
        one
        for number in range(count)
        for one in engine([1.0] * 9, [2.0] * 9, f"{name}-7d9f8b6c5-abcd{number}", namespace="serving", model_name=model)
    ]


ENGINES = [
    *pods("llama-h100", "llama", 3),
    *pods("llama-a100", "llama", 2),
    series("sglang:num_running_reqs", [1.0] * 9, pod="qwen-0", namespace="other", model_name="qwen"),
    series("sglang:num_queue_reqs", [0.0] * 9, pod="qwen-0", namespace="other", model_name="qwen"),
]
DCGM = {
    "exported_namespace": "serving",
    "exported_pod": "llama-h100-7d9f8b6c5-abcd0",
    "pod": "dcgm-x",
    "modelName": "NVIDIA H100 80GB HBM3",
}
ASKED = {"namespace": "serving", "pod": "llama-a100-7d9f8b6c5-abcd1", "node": "n1"}
HPA = {"namespace": "serving", "horizontalpodautoscaler": "keda-hpa-llama"}
KNOWN: dict[str, Rows] = {
    "DCGM_FI_DEV_GPU_UTIL": [(DCGM, 8.0)],
    "kube_pod_container_resource_requests": [(ASKED, 4.0)],
    "kube_node_labels": [({"node": "n1", "label_nvidia_com_gpu_product": "NVIDIA-A100-SXM4-80GB"}, 1.0)],
    "vllm:cache_config_info": [
        ({"namespace": "serving", "pod": "llama-h100-7d9f8b6c5-abcd2", "num_gpu_blocks": "1000", "block_size": "16"}, 1.0)
    ],
    "max_over_time": [({}, 5.0)],
    "llm_d_epp_request_total": [({"priority": "0"}, 1.0), ({"priority": "100"}, 1.0)],
    "kube_horizontalpodautoscaler_spec_min_replicas": [(HPA, 1.0)],
    "kube_horizontalpodautoscaler_spec_max_replicas": [(HPA, 24.0)],
    "kube_horizontalpodautoscaler_info": [(HPA | {"scaletargetref_name": "llama-h100"}, 1.0)],
}


def found(engines: list[RawSeries], known: dict[str, Rows], days: int = 20) -> Discovery:
    def vector(rows: Rows) -> bytes:
        result = [{"metric": labels, "value": [1, str(value)]} for labels, value in rows]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()

    def reply(one: Asked) -> None:
        query = one.form.get("query", "")
        if one.path.endswith("buildinfo"):
            one.answer(b'{"status":"success","data":{"version":"2.42.0"}}')
        elif re.search(r"\[\d+ms\]$", query):
            one.answer(matrix(engines))
        elif query.startswith("count({"):
            one.answer(vector([({}, 1.0)] if float(one.form["time"]) > NOW / SECOND - days * 86_400 else []))
        else:
            one.answer(vector(next((rows for name, rows in known.items() if name in query), [])))

    with stub(reply) as web, PrometheusServer(prometheus_at(web.url)) as server:
        return discover(server, NOW)


def test_pools_are_told_apart_by_workload_and_model() -> None:
    seen = found(ENGINES, KNOWN)
    assert [(pool.namespace, pool.workload, pool.model, pool.instances) for pool in seen.pools] == [
        ("other", "qwen", "qwen", 1),
        ("serving", "llama-a100", "llama", 2),
        ("serving", "llama-h100", "llama", 3),
    ]
    qwen, a100, h100 = seen.pools
    assert qwen.engine is EngineKind.SGLANG
    assert (h100.gpu, h100.gpus, h100.kv_tokens, h100.most) == ("NVIDIA H100 80GB HBM3", 8, 16_000, 5)
    assert (a100.gpu, a100.gpus) == ("NVIDIA-A100-SXM4-80GB", 4)
    assert (seen.version, seen.interval, seen.days) == ("2.42.0", STEP, 14)


def test_the_labels_of_a_pool_match_its_series_and_no_others() -> None:
    for pool in found(ENGINES, KNOWN).pools:
        mine = [
            one for one in ENGINES if all(label_matches(one.labels.get(label, ""), value) for label, value in pool.series.items())
        ]
        assert {(one.labels["model_name"], workload_of(one.labels["pod"])) for one in mine} == {(pool.model, pool.workload)}


def test_gateways_and_autoscalers_come_along() -> None:
    seen = found(ENGINES, KNOWN)
    assert seen.fronts == {FrontKind.EPP: ("0", "100")}
    assert seen.scalers == (FoundScaler("serving", "keda-hpa-llama", "llama-h100", 1, 24),)
    assert seen.scalers[0].scaled_object == "llama"
    assert seen.notes == ()


def test_what_is_not_recorded_is_said() -> None:
    seen = found(ENGINES, {}, days=0)
    assert seen.days == 0
    assert {pool.gpu for pool in seen.pools} == {""}
    assert any("no GPU is recorded" in note for note in seen.notes)
    assert any("no autoscaler is recorded" in note for note in seen.notes)


def test_nobody_there_is_told() -> None:
    with pytest.raises(MeasurementError, match="no series of an engine"):
        found([], KNOWN)
    with (
        PrometheusServer(prometheus_at("http://127.0.0.1:1")) as server,
        pytest.raises(MeasurementError, match=r"127\.0\.0\.1:1"),
    ):
        discover(server, NOW)


@pytest.mark.parametrize(
    ("pod", "workload"),
    [("llama-7d9f8b6c5-abcd0", "llama"), ("qwen-3-0", "qwen-3"), ("plain", "plain"), ("a-b-5f6d7c8b9-x2x4z", "a-b"), ("", "")],
)
def test_workloads_of_pods(pod: str, workload: str) -> None:
    assert workload_of(pod) == workload
