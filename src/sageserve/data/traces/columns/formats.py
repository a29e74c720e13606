"""Trace formats: published ways to write requests, recognised by what a file holds and never by its name.

One table, `FORMATS`, that readers, `sageserve trace formats` and docs/reference/traces.md share; a new format is a new row.
Reads no file and converts no value. Read next: `layout.py`.
"""

from typing import Final

from sageserve.data.traces.columns.fields import Format
from sageserve.data.traces.columns.tools import TOOLS

_REGIONS_OF_RESEARCH_CODE: Final = {"0": "westus", "1": "centralus", "2": "eastus"}


def first_region(text: str) -> str:
    """Origin of a request in the SageServe research format: digits by preference, leading zeros lost.

    `210` is eastus before centralus before westus; `21` is `021` after a spreadsheet read it as a number.
    """
    return _REGIONS_OF_RESEARCH_CODE.get(text.strip().zfill(3)[:1], text)


FORMATS: Final[tuple[Format, ...]] = (
    Format(
        name="azure",
        about="Azure LLM inference traces 2023, 2024 and (with images) 2025",
        example="2023-11-16 18:15:46.6805900,374,44",
        source="Azure/AzurePublicDataset: TIMESTAMP,ContextTokens,GeneratedTokens; NumImages in 2025",
        columns={
            "time": ("TIMESTAMP",),
            "prompt": ("ContextTokens",),
            "output": ("GeneratedTokens",),
            "images": ("NumImages",),
        },
    ),
    Format(
        name="burstgpt",
        about="BurstGPT 1 and 2, in seconds; answers of 0 tokens are failed requests",
        example="5,ChatGPT,472,18,490,Conversation log",
        source="HPMLL/BurstGPT: Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        columns={
            "time": ("Timestamp",),
            "model": ("Model",),
            "prompt": ("Request tokens",),
            "output": ("Response tokens",),
            "session": ("Session ID",),
        },
        clock="s",
        failures=True,
    ),
    Format(
        name="sageserve-research",
        about="the SageServe research simulator (15 columns)",
        example="0,-1,1,2,EnterpriseSydney,10,3,210,llama2-70b,prod,0,0.25,1,100,7",
        source="its random generator: request_id,…,regions,model_type,workload_type,…,arrival_timestamp,…,prompt_size,…",
        columns={
            "time": ("arrival_timestamp",),
            "prompt": ("prompt_size",),
            "output": ("token_size",),
            "model": ("model_type",),
            "tier": ("workload_type",),
            "region": ("regions",),
        },
        clock="s",
        signs=("model_type", "workload_type"),
        renames={"region": first_region},
        notes=("the first region of each request's preference list is its origin",),
    ),
    Format(
        name="splitwise",
        about="Splitwise simulator",
        example="0,2,0,0.0,1,512,64",
        source="Mutinifni/splitwise-sim: request_id,request_type,application_id,arrival_timestamp,…,prompt_size,token_size",
        columns={"time": ("arrival_timestamp",), "prompt": ("prompt_size",), "output": ("token_size",)},
        clock="s",
    ),
    Format(
        name="vidur",
        about="Vidur simulator, in seconds",
        example="0.052,396,109,505,3.6",
        source="microsoft/vidur: arrived_at,num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio",
        columns={"time": ("arrived_at",), "prompt": ("num_prefill_tokens",), "output": ("num_decode_tokens",)},
        clock="s",
    ),
    Format(
        name="servegen",
        about="ServeGen, in seconds; files without arrivals need --all-at or --rate",
        example="0,0.12,520,80",
        source="alibaba/ServeGen, save_requests_to_csv: request_id,timestamp,input_tokens,output_tokens",
        columns={
            "time": ("timestamp",),
            "prompt": ("input_tokens",),
            "output": ("output_tokens",),
        },
        signs=("request_id",),
    ),
    Format(
        name="bailian",
        about="Alibaba Bailian (Qwen) traces: like Mooncake, but in seconds, with blocks of 16 tokens and conversations",
        example='{"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 521, "output_length": 132, "type": '
        '"text", "turn": 1, "hash_ids": [1089, 1090]}',
        source="alibaba-edu/qwen-bailian-usagetraces-anon; block size as in aiperf 0.13.0",
        columns={
            "time": ("timestamp",),
            "prompt": ("input_length",),
            "output": ("output_length",),
            "request": ("chat_id",),
            "parent": ("parent_chat_id",),
            "turn": ("turn",),
            "blocks": ("hash_ids",),
        },
        clock="s",
        signs=("chat_id", "turn"),
        block=16,
    ),
    Format(
        name="mooncake",
        about="Mooncake traces in milliseconds, blocks of 512 tokens; with session_id and delay: several turns",
        example='{"timestamp": 2000, "input_length": 1600, "output_length": 20, "hash_ids": [0, 1, 3, 4]}',
        source="kvcache-ai/Mooncake; sessions, delays and text as in aiperf 0.13.0",
        columns={
            "time": ("timestamp",),
            "prompt": ("input_length",),
            "output": ("output_length",),
            "session": ("session_id",),
            "delay": ("delay",),
            "blocks": ("hash_ids",),
            "text": ("text_input",),
        },
        clock="ms",
        block=512,
    ),
    *TOOLS,
)

OWN: Final = Format(
    name="sageserve",
    about="SageServe's own Parquet, as `sageserve trace convert` writes it",
    example="arrival_us, model, tier, region, prompt_tokens, output_tokens, …",
    source="data/traces/archive.py",
    columns={
        "time": ("arrival_us",),
        "prompt": ("prompt_tokens",),
        "output": ("output_tokens",),
        "model": ("model",),
        "tier": ("tier",),
        "region": ("region",),
        "deadline": ("deadline_us",),
        "cached": ("cached_tokens",),
        "session": ("session",),
        "turn": ("turn",),
        "delay": ("delay_us",),
        "adapter": ("adapter",),
        "tenant": ("tenant",),
        "user": ("user",),
        "key": ("key",),
        "images": ("images",),
        "audio": ("audio",),
        "blocks": ("block_hashes",),
    },
    clock="us",
    pause="us",
)

GENERIC: Final = Format(
    name="generic",
    about="any CSV, JSON, JSON lines, Parquet or Arrow file with usual names",
    example="arrival_s,model,tier,region,prompt_tokens,output_tokens",
    source="the names below",
    columns={},
)

NOT_READ: Final[tuple[tuple[str, str], ...]] = (
    ("Excel workbooks (.xlsx)", "save the sheet as CSV"),
    ("genai-perf profile_export.json", "it holds times of answers, no token counts; use aiperf's profile_export.jsonl"),
    ("guidellm benchmarks.json, inference-perf, LangSmith, Helicone, Weights & Biases Weave, Bedrock and Azure Monitor logs",
     "no sample and no schema was at hand: name the columns with --column, dotted where they are nested"),
)  # fmt: skip
"""What people have and this cannot read: what, and what to do instead."""
