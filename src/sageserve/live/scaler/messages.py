"""The messages of KEDA's external scaler, read and written; names and numbers are of its `externalscaler` package.

    IsActive        (ScaledObjectRef) -> IsActiveResponse          StreamIsActive (ScaledObjectRef) -> stream of it
    GetMetricSpec   (ScaledObjectRef) -> GetMetricSpecResponse     GetMetrics (GetMetricsRequest) -> GetMetricsResponse

The format is KEDA's (keda.sh/docs, "External Scalers") and is described here in protobuf's own terms; no file is generated.
Whole numbers stand beside every float, because KEDA reads the float only when it is above 0.
Knows no server. Read next: `service.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

PACKAGE: Final = "externalscaler"
SERVICE: Final = f"{PACKAGE}.ExternalScaler"
METRIC: Final = "desired"
"""Name of the one metric that every target has: instances wanted, one per instance."""

_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bool": _FIELD.TYPE_BOOL,
    "double": _FIELD.TYPE_DOUBLE,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}
_MESSAGES: Final[Mapping[str, tuple[str, ...]]] = {  # fields in order of their numbers, as `.proto` files write them
    "ScaledObjectRef": ("string name", "string namespace", "map scalerMetadata"),
    "IsActiveResponse": ("bool result",),
    "MetricSpec": ("string metricName", "int64 targetSize", "double targetSizeFloat"),
    "GetMetricSpecResponse": ("repeated MetricSpec metricSpecs",),
    "GetMetricsRequest": ("ScaledObjectRef scaledObjectRef", "string metricName"),
    "MetricValue": ("string metricName", "int64 metricValue", "double metricValueFloat"),
    "GetMetricsResponse": ("repeated MetricValue metricValues",),
}


@dataclass(frozen=True, slots=True)
class KedaTrigger:
    """Who asks: a ScaledObject, and what its trigger says.

    Args:
        name: of the ScaledObject.
        namespace: of it.
        metadata: keys and values of the trigger.
    """

    name: str
    namespace: str
    metadata: Mapping[str, str]

    @property
    def place(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="externalscaler.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in enumerate(fields, start=1):
            *label, kind, field = text.split(" ")
            added = message.field.add(name=field, number=number, label=_FIELD.LABEL_REPEATED if label else _FIELD.LABEL_OPTIONAL)
            if kind == "map":
                _add_map(message, added)
            elif kind in _SCALARS:
                added.type = _SCALARS[kind]
            else:
                added.type, added.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    return file


def _add_map(message: descriptor_pb2.DescriptorProto, field: descriptor_pb2.FieldDescriptorProto) -> None:
    """A map from text to text is a list of entries, which is how protobuf writes it."""
    entry = message.nested_type.add(name="ScalerMetadataEntry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), start=1):
        entry.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL, type=_FIELD.TYPE_STRING)
    field.label, field.type = _FIELD.LABEL_REPEATED, _FIELD.TYPE_MESSAGE
    field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"


def _classes() -> Mapping[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_described())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _MESSAGES}


TYPES: Final[Mapping[str, Any]] = _classes()
"""Protobuf's class of every message, by name; also for a client."""


def read_asked(data: bytes) -> KedaTrigger:
    """A ScaledObjectRef.

    Raises:
        ValueError: it is none.
    """
    return _asked(_parsed("ScaledObjectRef", data))


def read_metrics_asked(data: bytes) -> tuple[KedaTrigger, str]:
    """A GetMetricsRequest: who asks, and for which metric.

    Raises:
        ValueError: it is none.
    """
    found = _parsed("GetMetricsRequest", data)
    return _asked(found.scaledObjectRef), str(found.metricName)


def _parsed(name: str, data: bytes) -> Any:  # noqa: ANN401 # protobuf's classes are made at run time
    try:
        return TYPES[name].FromString(data)
    except DecodeError as error:
        raise ValueError(f"no {name}: {error}") from None


def _asked(found: Any) -> KedaTrigger:  # noqa: ANN401 # see above
    return KedaTrigger(str(found.name), str(found.namespace), dict(found.scalerMetadata))


def active(is_active: bool) -> bytes:  # it is the message
    """An IsActiveResponse."""
    return bytes(TYPES["IsActiveResponse"](result=is_active).SerializeToString())


def metric_spec() -> bytes:
    """A GetMetricSpecResponse: one instance for each one wanted."""
    spec = TYPES["MetricSpec"](metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
    return bytes(TYPES["GetMetricSpecResponse"](metricSpecs=[spec]).SerializeToString())


def metric_value(name: str, count: int) -> bytes:
    """A GetMetricsResponse.

    Args:
        name: of the metric, as it was asked for.
        count: instances wanted.
    """
    value = TYPES["MetricValue"](metricName=name, metricValue=count, metricValueFloat=float(count))
    return bytes(TYPES["GetMetricsResponse"](metricValues=[value]).SerializeToString())
