"""How an engine wants to be asked: which path, token numbers or text, and whether it can be made to write a given length.

Tries, in the order of what measures best: token numbers on /completions, text on /completions, /chat/completions. Makes a few
short requests and refuses engines that cannot be measured. Read next: `client.py`, `prompts.py`.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from msgspec import Struct

from sageserve.base.errors import MeasurementError
from sageserve.base.rng import stream
from sageserve.live.benchmark.client import Body, EngineClient, Prompt, RequestFailed, RequestSample
from sageserve.live.benchmark.prompts import Prompts, TokenPrompts, WordPrompts, words_from_trials

_PROBE_PROMPT: Final = 64
_PROBE_OUTPUT: Final = 16
_FEW, _MANY = 32, 256  # words of the two trials
_FORBIDDEN: Final = {401, 403}


@dataclass(frozen=True, slots=True)
class RequestStyle:
    """A way of asking that works.

    Args:
        model: as the engine names it.
        chat: /chat/completions instead of /completions.
        forced: the engine takes min_tokens and ignore_eos, so that answers are as long as wanted.
        prompts: what prompts are made of.
    """

    model: str
    chat: bool = False
    forced: bool = True
    prompts: Prompts = field(default_factory=TokenPrompts)

    def body(self, prompt: Prompt, output: int) -> Body:
        """A request for an answer of (at most) `output` tokens."""
        fields: dict[str, object] = {
            "model": self.model,
            "max_tokens": output,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.chat:
            fields["messages"] = [{"role": "user", "content": prompt}]
        else:
            fields["prompt"] = prompt
        if self.forced:
            fields |= {"min_tokens": output, "ignore_eos": True}
        return Body("/chat/completions" if self.chat else "/completions", fields)


class _Model(Struct):
    id: str
    max_model_len: int | None = None


class _Version(Struct):
    version: str


class _Models(Struct):
    data: list[_Model] = []


async def find_context(client: EngineClient, model: str) -> int | None:
    """The context of the model as the engine states it (vLLM does); None where it says nothing.

    Raises:
        MeasurementError: the engine cannot be reached, refuses the key, or does not serve the model.
    """
    try:
        found = msgspec.json.decode(await client.get(client.root + "/models"), type=_Models).data
    except RequestFailed as error:
        if error.status == 0 or error.status in _FORBIDDEN:
            raise _no_engine(client, error) from None
        return None  # an engine need not list its models
    except (ValueError, RecursionError):
        return None
    named = {each.id: each.max_model_len for each in found}
    if found and model not in named:
        raise MeasurementError(
            f"the engine at {client.root} does not serve {model!r}", hint=f"it serves {', '.join(list(named)[:8])}: --model NAME"
        )
    return named.get(model)


async def find_version(client: EngineClient) -> str:
    """The engine's version as vLLM and others state it at /version; empty where there is none."""
    try:
        page = await client.get(client.root.removesuffix("/v1") + "/version")
        return msgspec.json.decode(page, type=_Version).version
    except (RequestFailed, ValueError, RecursionError):
        return ""  # for the record only


async def find_shape(client: EngineClient, model: str, seed: int) -> RequestStyle:
    """The best way of asking that this engine understands.

    Raises:
        MeasurementError: none works, or the engine does not stream or does not count tokens; with the engine's own words.
    """
    words = WordPrompts()
    ways = (
        RequestStyle(model),
        RequestStyle(model, prompts=words),
        RequestStyle(model, chat=True, prompts=words),
        RequestStyle(model, forced=False, prompts=words),
        RequestStyle(model, chat=True, forced=False, prompts=words),
    )
    failures: list[RequestFailed] = []
    for way in ways:
        try:
            first = await _probe(client, way, seed)
        except RequestFailed as error:
            if error.status in _FORBIDDEN or error.status == 0:
                raise _no_engine(client, error) from None
            failures.append(error)
            continue
        if isinstance(way.prompts, TokenPrompts) and first.prompt != _PROBE_PROMPT:
            continue  # it took the numbers for something else
        _check_streams(first)
        return way if isinstance(way.prompts, TokenPrompts) else await _sized(client, way, seed)
    raise MeasurementError(
        f"the engine at {client.root} cannot be measured: {failures[-1]}",
        hint="the benchmark needs a streaming /v1/completions or /v1/chat/completions with usage in the stream",
    )


async def _probe(client: EngineClient, way: RequestStyle, seed: int) -> RequestSample:
    prompt = way.prompts.make(_PROBE_PROMPT, stream(seed, "benchmark/probe"))
    return await client.ask(way.body(prompt, _PROBE_OUTPUT))


def _check_streams(sample: RequestSample) -> None:
    if sample.output > 4 and (len(sample.stamps) < 2 or sample.stamps[0] == sample.stamps[-1]):
        raise MeasurementError(
            f"the engine does not stream: {sample.output} tokens came all at once",
            hint="something in between may be buffering the stream; benchmark the engine itself",
        )


async def _sized(client: EngineClient, way: RequestStyle, seed: int) -> RequestStyle:
    """The same way, with the number of tokens of a word measured."""
    rng = stream(seed, "benchmark/words")
    counts: list[tuple[int, int]] = []
    for words in (_FEW, _MANY):
        try:
            sample = await client.ask(way.body(WordPrompts().make(words, rng), 1))
        except RequestFailed as error:
            raise _no_engine(client, error) from None
        counts.append((words, sample.prompt))
    return replace(way, prompts=words_from_trials(counts[0], counts[1]))


def _no_engine(client: EngineClient, error: RequestFailed) -> MeasurementError:
    hint = "is it running, and is this its address?"
    if error.status in _FORBIDDEN:
        hint = "put the key into an environment variable and name that with --key-env"
    return MeasurementError(f"the engine at {client.root} cannot be asked: {error}", hint=hint)
