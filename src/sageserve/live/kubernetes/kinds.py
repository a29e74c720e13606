"""Kinds of objects: their group, version and plural, and where those that hold a count keep it and its bounds.

Facts of the APIs, nothing else; docs/reference/doctor.md says which are looked at for what.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from sageserve.base.config.clusters import RAY

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KubeKind:
    """A kind.

    Args:
        kind, group, version, plural: as in its API; the core group is empty.
        namespaced: whether its objects live in namespaces.
        low, high: where the minimum and maximum of instances stand; empty: it has none.
        count: where the number of instances stands; empty: it has none.
        scale: it has the subresource `scale`.
    """

    kind: str
    group: str
    version: str
    plural: str
    namespaced: bool = True
    low: Path = ()
    high: Path = ()
    count: Path = ()
    scale: bool = False

    @property
    def resource(self) -> str:
        """As kubectl and Roles name it: `scaledobjects.keda.sh`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """As objects say it."""
        return f"{self.group}/{self.version}" if self.group else self.version


_REPLICAS: Final = ("spec", "replicas")


def _bounds(*path: str, low: str = "minReplicas", high: str = "maxReplicas") -> tuple[Path, Path]:
    return ("spec", *path, low), ("spec", *path, high)


_SCALED: Final = _bounds(low="minReplicaCount", high="maxReplicaCount")
_PLAIN: Final = _bounds()
_SCALING: Final = _bounds("scaling")
_RUNTIME: Final = _bounds("autoscalingConfig")

KINDS: Final[dict[str, KubeKind]] = {
    one.kind: one
    for one in (
        KubeKind("Deployment", "apps", "v1", "deployments", count=_REPLICAS, scale=True),
        KubeKind("StatefulSet", "apps", "v1", "statefulsets", count=_REPLICAS, scale=True),
        KubeKind("LeaderWorkerSet", "leaderworkerset.x-k8s.io", "v1", "leaderworkersets", count=_REPLICAS, scale=True),
        KubeKind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers", low=_PLAIN[0], high=_PLAIN[1]),
        KubeKind("ScaledObject", "keda.sh", "v1alpha1", "scaledobjects", low=_SCALED[0], high=_SCALED[1]),
        KubeKind(
            "LLMInferenceService",
            "serving.kserve.io",
            "v1alpha2",
            "llminferenceservices",
            low=_SCALING[0],
            high=_SCALING[1],
            count=_REPLICAS,
        ),
        KubeKind(
            "VLLMRuntime",
            "production-stack.vllm.ai",
            "v1alpha1",
            "vllmruntimes",
            low=_RUNTIME[0],
            high=_RUNTIME[1],
            count=("spec", "deploymentConfig", "replicas"),
            scale=True,
        ),
        KubeKind("PodAutoscaler", "autoscaling.aibrix.ai", "v1alpha1", "podautoscalers", low=_PLAIN[0], high=_PLAIN[1]),
        KubeKind("StormService", "orchestration.aibrix.ai", "v1alpha1", "stormservices", count=_REPLICAS, scale=True),
        KubeKind(
            "DynamoGraphDeploymentScalingAdapter",
            "nvidia.com",
            "v1alpha1",
            "dynamographdeploymentscalingadapters",
            count=_REPLICAS,
            scale=True,
        ),
        KubeKind("ModelDeployment", "modelplane.ai", "v1alpha1", "modeldeployments", count=_REPLICAS, scale=True),
        KubeKind(RAY, "", "ray", "rayserves", low=_PLAIN[0], high=_PLAIN[1], count=_REPLICAS),
        KubeKind("AIGatewayRoute", "aigateway.envoyproxy.io", "v1beta1", "aigatewayroutes"),
        KubeKind("ModelService", "modelplane.ai", "v1alpha1", "modelservices"),
        KubeKind("VariantAutoscaling", "llmd.ai", "v1alpha1", "variantautoscalings"),
        KubeKind("Pod", "", "v1", "pods"),
        KubeKind("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices"),
        KubeKind("ConfigMap", "", "v1", "configmaps"),
        KubeKind("Event", "", "v1", "events"),
        KubeKind("ResourceQuota", "", "v1", "resourcequotas"),
        KubeKind("Node", "", "v1", "nodes", namespaced=False),
        KubeKind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets"),
        KubeKind("Lease", "coordination.k8s.io", "v1", "leases"),
        KubeKind("APIService", "apiregistration.k8s.io", "v1", "apiservices", namespaced=False),
        KubeKind("Application", "argoproj.io", "v1alpha1", "applications"),
        KubeKind("SelfSubjectAccessReview", "authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False),
    )
}
"""By kind: those that targets may be, and those that are looked at beside them."""

SCALERS: Final = ("HorizontalPodAutoscaler", "ScaledObject", "PodAutoscaler", "VariantAutoscaling")
"""Kinds that write the count of another object."""

COUNTED: Final = ("Deployment", "StatefulSet", "LeaderWorkerSet")
"""Kinds whose replicas are written, through `scale`: the pods of each, and how many of them serve, are known."""

ALL_RUNGS: Final = (RAY,)
"""Kinds that have both; which of them may be written, the object itself says."""

BOUNDED: Final = ("HorizontalPodAutoscaler", "ScaledObject")
"""Kinds whose minimum and maximum are written."""

OWNERS: Final = (
    "LLMInferenceService",
    "VLLMRuntime",
    "ModelDeployment",
    "DynamoGraphDeployment",
    "DynamoComponentDeployment",
    "StormService",
)
"""Kinds whose controllers put back what is changed in the objects they made: they are patched instead."""
