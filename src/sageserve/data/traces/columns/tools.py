"""Formats of tools: what engines, gateways, benchmarks, tracers and providers write about requests.

The second half of the table of `formats.py`; each row says where its schema comes from. Reads no file.
Read next: `layout.py`.
"""

from typing import Final

from sageserve.data.traces.columns.fields import Format

TOOLS: Final[tuple[Format, ...]] = (
    Format(
        name="dynamo",
        about="NVIDIA Dynamo request traces (request_end records; tool records are passed over)",
        example='{"event":{"event_type":"request_end","request":{"request_id":"r1","model":"m","input_tokens":300,"output_tokens":50,'
        '"cached_tokens":128,"request_received_ms":1777312801000}}}',
        source="dynamo-llm 1.4.1 (crate): schema dynamo.request.trace.v1, bare or as field `event` of a log line",
        columns={
            "time": ("event.request.request_received_ms", "request.request_received_ms"),
            "prompt": ("event.request.input_tokens", "request.input_tokens"),
            "output": ("event.request.output_tokens", "request.output_tokens"),
            "cached": ("event.request.cached_tokens", "request.cached_tokens"),
            "model": ("event.request.model", "request.model"),
            "session": ("event.agent_context.session_id", "agent_context.session_id"),
        },
        mixed=True,
    ),
    Format(
        name="aiperf",
        about="aiperf profile_export.jsonl, one record per request",
        example='{"metadata": {"session_num": 0, "request_start_ns": 1759813207532900363, "was_cancelled": false}, "metrics": '
        '{"input_sequence_length": {"value": 550, "unit": "tokens"}, "output_sequence_length": {"value": 90, "unit": "tokens"}}}',
        source="aiperf 0.13.0, aiperf.common.models.record_models",
        columns={
            "time": ("metadata.request_start_ns",),
            "prompt": ("metrics.input_sequence_length.value",),
            "output": ("metrics.output_sequence_length.value",),
            "session": ("metadata.x_correlation_id", "metadata.conversation_id"),
            "turn": ("metadata.turn_index",),
            "failed": ("error",),
        },
    ),
    Format(
        name="payloads",
        about="genai-perf and aiperf payloads: text instead of token counts, so --chars-per-token, and --rate or --all-at",
        example='{"model":"m","messages":[{"role":"user","content":"hello"}],"max_tokens":8,"session_id":"d1","delay":1000}',
        source="genai-perf 0.0.16, PayloadInputRetriever; aiperf 0.13.0, SingleTurn and MultiTurn",
        columns={
            "time": ("timestamp",),
            "text": ("messages", "text_input", "text", "texts"),
            "output": ("max_tokens", "max_completion_tokens", "output_length"),
            "session": ("session_id",),
            "delay": ("delay",),
        },
        clock="ms",
        timeless=True,
    ),
    Format(
        name="vllm-bench",
        about="results of `vllm bench serve --save-detailed` and of sglang's bench_serving --output-details",
        example='{"date": "20251102-101112", "backend": "vllm", "model_id": "m", "request_rate": 2.0, "input_lens": [300, 300], '
        '"output_lens": [100, 120], "start_times": [12.1, 12.6]}',
        source="vLLM 009e6d4, vllm.benchmarks.serve; sglang 0.5.23, sglang.benchmark.serving, which writes no start_times",
        columns={
            "time": ("start_times",),
            "prompt": ("input_lens",),
            "output": ("output_lens",),
            "model": ("model_id",),
            "cached": ("cached_tokens",),
            "failed": ("errors",),
            "rate": ("request_rate",),
        },
        clock="s",
        signs=("input_lens", "output_lens"),
        failures=True,
        first=True,
        timeless=True,
    ),
    Format(
        name="ghcp",
        about="GitHub Copilot sessions: every call of every turn is a request",
        example='{"session_id": "s1", "date": "2026-06-01", "turns": [{"llm_calls": [{"timestamp": "2026-06-01T00:00:01Z", '
        '"model": "Model A", "tokens": {"prompt": 32000, "completion": 150, "cached": 28000}}], "tool_batches": []}]}',
        source="the published GHCP trace: sessions, turns, llm_calls",
        columns={
            "time": ("timestamp",),
            "prompt": ("tokens.prompt",),
            "output": ("tokens.completion",),
            "cached": ("tokens.cached",),
            "model": ("model",),
            "session": ("session_id",),
            "turn": ("turn",),
        },
    ),
    Format(
        name="otel-genai",
        about="OpenTelemetry GenAI spans: OTLP JSON, or one span per line (OpenLLMetry); other spans are passed over",
        example='{"name": "openai.chat", "start_time": "2025-06-01T10:00:00.123456Z", "attributes": '
        '{"gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": 320, "gen_ai.usage.output_tokens": 55}}',
        source="opentelemetry-semantic-conventions 0.66b2, opentelemetry-semantic-conventions-ai 0.5.1",
        columns={
            "time": ("startTimeUnixNano", "start_time", "start_time_unix_nano"),
            "prompt": ("attributes.gen_ai.usage.input_tokens", "attributes.gen_ai.usage.prompt_tokens"),
            "output": ("attributes.gen_ai.usage.output_tokens", "attributes.gen_ai.usage.completion_tokens"),
            "cached": ("attributes.gen_ai.usage.cache_read.input_tokens", "attributes.gen_ai.usage.cache_read_input_tokens"),
            "model": ("attributes.gen_ai.request.model", "attributes.gen_ai.response.model"),
            "session": ("attributes.gen_ai.conversation.id",),
            "kind": ("attributes.gen_ai.operation.name",),
        },
        mixed=True,
    ),
    Format(
        name="openinference",
        about="OpenInference spans (Arize Phoenix), OTLP JSON or one per line; other spans are passed over",
        example='{"start_time": "2025-06-01T10:00:00Z", "attributes": {"llm.model_name": "gpt-4o", "llm.token_count.prompt": '
        '320, "llm.token_count.completion": 55}}',
        source="openinference-semantic-conventions 0.1.42",
        columns={
            "time": ("startTimeUnixNano", "start_time", "start_time_unix_nano"),
            "prompt": ("attributes.llm.token_count.prompt",),
            "output": ("attributes.llm.token_count.completion",),
            "cached": ("attributes.llm.token_count.prompt_details.cache_read",),
            "model": ("attributes.llm.model_name",),
            "session": ("attributes.session.id",),
            "user": ("attributes.user.id",),
        },
        mixed=True,
    ),
    Format(
        name="openai",
        about="logged OpenAI answers (chat, completions, responses), and the output files of its Batch API",
        example='{"created": 1748736000, "model": "gpt-4o", "usage": {"prompt_tokens": 320, "completion_tokens": 55, '
        '"prompt_tokens_details": {"cached_tokens": 256}}}',
        source="openai 3.57.0, types CompletionUsage, ResponseUsage",
        columns={
            "time": ("created", "created_at", "response.body.created", "response.body.created_at"),
            "prompt": (
                *("usage.prompt_tokens", "usage.input_tokens"),
                *("response.body.usage.prompt_tokens", "response.body.usage.input_tokens"),
            ),
            "output": (
                *("usage.completion_tokens", "usage.output_tokens"),
                *("response.body.usage.completion_tokens", "response.body.usage.output_tokens"),
            ),
            "cached": (
                *("usage.prompt_tokens_details.cached_tokens", "usage.input_tokens_details.cached_tokens"),
                "response.body.usage.prompt_tokens_details.cached_tokens",
                "response.body.usage.input_tokens_details.cached_tokens",
            ),
            "model": ("model", "response.body.model"),
        },
    ),
    Format(
        name="litellm",
        about="LiteLLM spend logs, as CSV or JSON; embeddings and the like are passed over",
        example="chatcmpl-1,acompletion,h1,0.002,375,320,55,2025-06-01 10:00:00.123,…,gpt-4o,…",
        source="litellm 1.110.2, table LiteLLM_SpendLogs",
        columns={
            "time": ("startTime",),
            "prompt": ("prompt_tokens",),
            "output": ("completion_tokens",),
            "cached": ("metadata.usage_object.prompt_tokens_details.cached_tokens",),
            "model": ("model",),
            "tenant": ("team_id", "organization_id"),
            "user": ("end_user", "user"),
            "key": ("api_key",),
            "session": ("session_id",),
            "kind": ("call_type",),
        },
        signs=("call_type",),
    ),
    Format(
        name="langfuse",
        about="Langfuse observations, exported as JSON or CSV or fetched from its API; spans and events are passed over",
        example='{"id": "o1", "startTime": "2025-06-01T10:00:00.123Z", "model": "gpt-4o", "usage": {"input": 320, "output": 55}}',
        source="langfuse 5.0.4, langfuse.api.commons.types (usage, usageDetails)",
        columns={
            "time": ("startTime",),
            "prompt": ("usageDetails.input", "usage.input", "inputUsage", "usageDetails.prompt_tokens"),
            "output": ("usageDetails.output", "usage.output", "outputUsage", "usageDetails.completion_tokens"),
            "model": ("model",),
            "session": ("sessionId",),
            "user": ("userId",),
        },
        mixed=True,
    ),
    Format(
        name="devproxy",
        about="Microsoft Dev Proxy usage log",
        example="2025-10-28T10:15:30.123Z,200,,,150,75,,225,9850,49",
        source="its CSV: time,status,retry-after,policy,prompt tokens,completion tokens,cached tokens,…",
        columns={
            "time": ("time",),
            "prompt": ("prompt tokens",),
            "output": ("completion tokens",),
            "cached": ("cached tokens",),
            "failed": ("status",),
        },
        signs=("retry-after", "policy"),
    ),
    Format(
        name="openai-usage",
        about="OpenAI usage exports and its usage API by minute, hour or day: sums, which only --expand makes requests of",
        example="1748736000,1748739600,…,p1,120,u,k,gpt-4o-2024-08-06,False,default,45000,9000,12000,0,0",
        source="openai 3.57.0, types.admin.organization.usage_completions_response",
        columns={
            "time": ("start_time",),
            "end": ("end_time",),
            "count": ("num_model_requests",),
            "prompt": ("input_tokens",),
            "output": ("output_tokens",),
            "cached": ("input_cached_tokens",),
            "model": ("model",),
            "tier": ("service_tier",),
            "tenant": ("project_id",),
            "user": ("user_id",),
            "key": ("api_key_id",),
        },
        signs=("num_model_requests",),
    ),
    Format(
        name="prometheus",
        about="Prometheus range answers that hold an engine's counters of requests, prompt and generated tokens: sums, as above",
        example='{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"vllm:prompt_tokens_total"},'
        '"values":[[1748736000,"0"],[1748736060,"5200"]]}]}}',
        source="Prometheus HTTP API v1 (prometheus-api-client 0.7.2); counters of vLLM and SGLang",
        columns={
            "time": ("start",),
            "end": ("end",),
            "count": ("requests",),
            "prompt": ("prompt_tokens",),
            "output": ("generation_tokens",),
            "model": ("model_name",),
        },
        clock="s",
        signs=("generation_tokens", "requests"),
    ),
)
