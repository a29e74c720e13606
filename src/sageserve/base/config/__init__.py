"""The settings tree: one frozen value that says everything about a run.

Knows names, types, defaults and the reason of each default; reads no file and makes no decision. Keys are
words of the glossary; durations, sizes, prices and shares carry units (`base/units.py`). Read next:
`scenario.py` for the root, `data/scenarios/load.py` for files, provenance and `--set`.
"""

from sageserve.base.config.autoscalers import (
    HpaMetricSettings,
    HpaPolicySettings,
    HpaScaleDownSettings,
    HpaScalingSettings,
    HpaSettings,
    KedaSettings,
    RecordedSettings,
)
from sageserve.base.config.clusters import (
    BasicSettings,
    BudgetSettings,
    ClusterSettings,
    PrioritySettings,
    PrometheusSettings,
    TargetSettings,
)
from sageserve.base.config.hardware import GpuSettings, PriceSettings, RegionSettings, StockSettings
from sageserve.base.config.live import (
    RESERVED_NAMES,
    ROLES,
    EngineCommand,
    FixedInstance,
    JobSettings,
    KeySettings,
    LimitSettings,
    LiveSettings,
    SafetySettings,
    TlsSettings,
)
from sageserve.base.config.models import LoadSettings, ModelSettings, ProfileSettings
from sageserve.base.config.rules import (
    AdmissionSettings,
    BatchSettings,
    ChironSettings,
    FaultSettings,
    FleetSettings,
    ForesightSettings,
    OrderSettings,
    PlannedSettings,
    ReactiveSettings,
    RoutingSettings,
    SignalSettings,
    SiloedSettings,
    SpotSettings,
    StrategySettings,
    TierSettings,
    TunedSettings,
)
from sageserve.base.config.scenario import Scenario
from sageserve.base.config.settings import Name, Settings
from sageserve.base.config.traffic import (
    AssignSettings,
    BurstSettings,
    ConversationSettings,
    GeneratorSettings,
    ShapeSettings,
    WorkloadSettings,
)

__all__ = [
    "RESERVED_NAMES",
    "ROLES",
    "AdmissionSettings",
    "AssignSettings",
    "BasicSettings",
    "BatchSettings",
    "BudgetSettings",
    "BurstSettings",
    "ChironSettings",
    "ClusterSettings",
    "ConversationSettings",
    "EngineCommand",
    "FaultSettings",
    "FixedInstance",
    "FleetSettings",
    "ForesightSettings",
    "GeneratorSettings",
    "GpuSettings",
    "HpaMetricSettings",
    "HpaPolicySettings",
    "HpaScaleDownSettings",
    "HpaScalingSettings",
    "HpaSettings",
    "JobSettings",
    "KedaSettings",
    "KeySettings",
    "LimitSettings",
    "LiveSettings",
    "LoadSettings",
    "ModelSettings",
    "Name",
    "OrderSettings",
    "PlannedSettings",
    "PriceSettings",
    "PrioritySettings",
    "ProfileSettings",
    "PrometheusSettings",
    "ReactiveSettings",
    "RecordedSettings",
    "RegionSettings",
    "RoutingSettings",
    "SafetySettings",
    "Scenario",
    "Settings",
    "ShapeSettings",
    "SignalSettings",
    "SiloedSettings",
    "SpotSettings",
    "StockSettings",
    "StrategySettings",
    "TargetSettings",
    "TierSettings",
    "TlsSettings",
    "TunedSettings",
    "WorkloadSettings",
]
