"""OpenTelemetry traces: one span `chat {model}` per request, with the attributes of the GenAI conventions.

Only made when traces are asked for; without them a request costs one comparison. Spans are exported by a thread of their own.
Prompts, answers and keys are never recorded. Read next: docs/reference/gateway.md, section Traces.
"""

from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_OPERATION: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/score": "score",
    "/score": "score",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}


class Tracer:
    """Makes spans and sends them away.

    Args:
        exporter: where they go.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": "sageserve-gateway"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sageserve.live.gateway")
        self._context = TraceContextTextMapPropagator()

    def begin(self, path: str, model: str, tier: str, traceparent: str | None) -> tuple[Span, bytes]:
        """A span, as child of the client's if it sent one; and the header line that makes the engine's spans its children."""
        parent = self._context.extract({"traceparent": traceparent} if traceparent else {})
        operation = _OPERATION.get(path, "chat")
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": model, "sageserve.tier": tier},
        )
        context = span.get_span_context()
        line = f"traceparent: 00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}\r\n"
        return span, line.encode()

    def end(self, span: Span, status: int, numbers: Mapping[str, int | float | str | None]) -> None:
        """Finish a span with what is known now; None is left out."""
        span.set_attribute("http.response.status_code", status)
        span.set_attributes({name: value for name, value in numbers.items() if value is not None})
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def tracer_to(url: str) -> Tracer:
    """Spans to an OTLP collector over HTTP, such as http://127.0.0.1:4318/v1/traces."""
    return Tracer(OTLPSpanExporter(endpoint=url))
