"""Pages fetched from engines: one request each, with a time limit and a size limit; whatever goes wrong is a kind of blindness.

Never raises for what an engine does. Keeps nothing between scrapes. Read next: `seen.py`.
"""

import asyncio
from typing import Final

import httpx
import msgspec
from msgspec import Struct

from sageserve.base.errors import in_words
from sageserve.live.telemetry.seen import Blind, BlindReason, Seen, read_seen

PAGE_MAX: Final = 8 << 20  # bytes: a vLLM page with eight ranks is about half a megabyte


async def scrape(client: httpx.AsyncClient, url: str, model: str = "", *, histograms: bool = False) -> Seen:
    """Look at an engine once.

    Args:
        client: its timeout is the time an engine has.
        url: of the metrics page, such as http://127.0.0.1:8000/metrics.
        model: the name the engine serves it under; empty: whatever there is.
        histograms: read these too.
    """
    try:
        async with asyncio.timeout(client.timeout.read), client.stream("GET", url) as answer:
            if answer.status_code != httpx.codes.OK:
                return Blind(BlindReason.STATUS, f"{url} answers {answer.status_code}")
            page = bytearray()
            async for part in answer.aiter_bytes():
                page += part
                if len(page) > PAGE_MAX:
                    return Blind(BlindReason.TOO_LARGE, f"{url} is larger than {PAGE_MAX >> 20} MiB")
    except (httpx.TimeoutException, TimeoutError):  # the second: it sends, but does not come to an end
        return Blind(BlindReason.TIMEOUT, f"{url} does not answer in time")
    except httpx.HTTPError as error:
        return Blind(BlindReason.UNREACHABLE, f"{url}: {in_words(error)}")
    return read_seen(page.decode("utf-8", "replace"), model, histograms=histograms)


class _Settings(Struct):
    n_ctx: int = 0


class _Props(Struct):
    total_slots: int = 0
    default_generation_settings: _Settings = msgspec.field(default_factory=_Settings)


async def llama_cpp_tokens(client: httpx.AsyncClient, url: str) -> int | None:
    """KV capacity of a llama.cpp server, which only `/props` tells: tokens per slot times slots; none: it does not say.

    Args:
        client: as for `scrape`.
        url: of the server, without a path.
    """
    try:
        props = msgspec.json.decode((await client.get(f"{url}/props")).content, type=_Props)
    except (httpx.HTTPError, ValueError, RecursionError):
        return None
    return props.total_slots * props.default_generation_settings.n_ctx or None
