"""Settings of what people run today: Kubernetes' HPA, KEDA in front of it, tuned thresholds, and the counts that they came to.

Defaults are those of the projects' own documentation (Kubernetes 1.36, KEDA 2.20). Knows no code that applies them.
Read next: `core/strategies/hpa.py`.
"""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from sageserve.base.config.settings import Name, Settings
from sageserve.base.units import MINUTE, SECOND, Duration, Share

ScaledSignal = Literal["kv", "requests", "waiting", "busy"]
"""What engines export: share of KV memory, requests running and waiting, requests waiting; `busy` is what nobody exports."""


class HpaPolicySettings(Settings):
    """How much may change within a period: so many pods, or so many percent."""

    pods: int | None = Field(default=None, ge=1, description="instances; none: percent")
    percent: int | None = Field(default=None, ge=1, description="of the instances at the begin of the period; none: pods")
    period: Duration = Field(default=15 * SECOND, gt=0, le=30 * MINUTE, description="15 s, as in Kubernetes' own defaults")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.pods is None) == (self.percent is None):
            raise ValueError("a policy has either pods or percent")
        return self


class HpaScalingSettings(Settings):
    """`behavior.scaleUp` or `behavior.scaleDown`."""

    stabilisation: Duration = Field(
        default=0, le=60 * MINUTE, description="the window whose gentlest recommendation counts; 0 up (Kubernetes)"
    )
    policies: tuple[HpaPolicySettings, ...] = Field(
        default=(HpaPolicySettings(pods=4), HpaPolicySettings(percent=100)),
        min_length=1,
        description="4 pods or 100 % in 15 s (Kubernetes)",
    )
    select: Literal["max", "min", "disabled"] = Field(default="max", description="of several policies (Kubernetes)")
    tolerance: Share | None = Field(default=None, description="of this direction; none: that of the autoscaler")


class HpaScaleDownSettings(HpaScalingSettings):
    """`behavior.scaleDown`."""

    stabilisation: Duration = Field(default=5 * MINUTE, le=60 * MINUTE, description="5 min (Kubernetes)")
    policies: tuple[HpaPolicySettings, ...] = Field(
        default=(HpaPolicySettings(percent=100),), min_length=1, description="as many as wanted at once (Kubernetes)"
    )


class HpaMetricSettings(Settings):
    """One metric and its target per instance."""

    signal: ScaledSignal = Field(default="requests", description="running + waiting: what guides of serving stacks use")
    target: float = Field(default=4.0, gt=0, description="per instance; a share for kv and busy, requests for the others")
    kind: Literal["pods", "external"] = Field(
        default="pods", description="pods: average over those that show it; external: the sum divided by all (AverageValue)"
    )


class HpaSettings(Settings):
    """Kubernetes' HorizontalPodAutoscaler, one per endpoint."""

    metrics: tuple[HpaMetricSettings, ...] = Field(
        default=(HpaMetricSettings(),), min_length=1, description="the largest answer counts (Kubernetes)"
    )
    minimum: int | None = Field(default=None, ge=0, description="minReplicas; none: the fleet's minimum, which holds in any case")
    maximum: int | None = Field(default=None, ge=1, description="maxReplicas; none: what the fleet may have")
    sync: Duration = Field(default=15 * SECOND, gt=0, description="--horizontal-pod-autoscaler-sync-period (Kubernetes)")
    tolerance: Share = Field(default=0.1, description="--horizontal-pod-autoscaler-tolerance (Kubernetes)")
    scale_up: HpaScalingSettings = Field(default=HpaScalingSettings(), description="behavior.scaleUp (Kubernetes)")
    scale_down: HpaScaleDownSettings = Field(default=HpaScaleDownSettings(), description="behavior.scaleDown (Kubernetes)")


class KedaSettings(HpaSettings):
    """KEDA: a metric polled by it, an HPA on the external metric, and the step between none and one by itself."""

    metrics: tuple[HpaMetricSettings, ...] = Field(
        default=(HpaMetricSettings(signal="waiting", target=1.0, kind="external"),),
        min_length=1,
        description="one waiting request per instance: KEDA's example for vLLM",
    )
    activation: float = Field(default=0.0, ge=0, description="activationThreshold: none is left when above (KEDA)")
    polling: Duration = Field(default=30 * SECOND, gt=0, description="pollingInterval, between none and one (KEDA)")
    cooldown: Duration = Field(default=5 * MINUTE, description="cooldownPeriod before none is left (KEDA)")


class RecordedSettings(Settings):
    """Counts of a fleet's past, to be played as they were."""

    counts: dict[Name, tuple[tuple[Duration, Annotated[int, Field(ge=0)]], ...]] = Field(
        default={},
        description="by region/model/gpu: (from when, instances that serve), the first from 0 on; read from a history",
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for pool, steps in self.counts.items():
            times = [at for at, _ in steps]
            if not times or times[0] != 0 or any(one >= other for one, other in pairwise(times)):
                raise ValueError(f"the counts of {pool} must begin at 0 and rise in time")
        return self
