"""Requests: the bodies of OpenAI's chat, completion and embedding calls, checked, and what they ask of the engine.

Unknown fields are ignored, as vLLM does. Knows no socket and no timing. Read next: `text.py`, `answers.py`, `engine.py`.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sageserve.base.records import CACHE_BLOCK
from sageserve.live.emulator.text import TOKENS_PER_IMAGE, TOKENS_PER_MESSAGE, AnswerLengths, key_of, tokens_of

_CHOICES_MAX: Final = 128  # OpenAI's limit of n
_DEFAULT_COMPLETION: Final = 16  # tokens: OpenAI's and vLLM's default of max_tokens for completions


_Prompts: TypeAlias = str | list[str | int | list[int]]
"""One text, several, one list of token numbers, or several of them."""


class Refused(Exception):
    """The request cannot be served; becomes an error body.

    Args:
        status: of HTTP.
        message: what is wrong.
        kind: vLLM's error type.
        param: the field that is wrong.
    """

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param


class _Part(Struct):
    type: str = "text"
    text: str = ""


class _Message(Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw(b"")


class _StreamOptions(Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class AskedBody(Struct, kw_only=True):
    """What chats, completions and responses have in common."""

    model: str = ""
    max_tokens: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    priority: int | None = None
    seed: int | None = None
    echo: bool | None = None


class _Function(Struct):
    name: str = ""


class _Tool(Struct):
    type: str = "function"
    name: str = ""  # in the Responses API
    function: _Function | None = None  # in chats

    @property
    def called(self) -> str:
        """Its function's name."""
        return self.function.name if self.function is not None else self.name


class ChatBody(AskedBody, kw_only=True):
    """Of /v1/chat/completions."""

    messages: list[_Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: msgspec.Raw = msgspec.Raw(b"")


class CompletionBody(AskedBody, kw_only=True):
    """Of /v1/completions."""

    prompt: _Prompts
    logprobs: int | None = None


class EmbeddingBody(Struct):
    """Of /v1/embeddings."""

    input: _Prompts
    model: str = ""
    dimensions: int | None = None
    encoding_format: Literal["float", "base64"] | None = None


@dataclass(frozen=True, slots=True)
class ServedLimits:
    """What the engine serves.

    Args:
        model: its name.
        context: tokens of prompt and answer together.
        lengths: of answers.
        hits: share of a prompt's tokens that the prefix cache holds.
        adapters: LoRA adapters of the model, which requests name in its place.
    """

    model: str
    context: int
    lengths: AnswerLengths
    hits: float = 0.0
    adapters: tuple[str, ...] = ()

    def adapter_of(self, model: str) -> int:
        """The number of the adapter that a request names; -1: it asks for the model itself.

        Raises:
            Refused: no model and no adapter has that name.
        """
        if not model or model == self.model:
            return -1
        if model not in self.adapters:
            raise Refused(404, f"The model `{model}` does not exist.", kind="NotFoundError", param="model")
        return self.adapters.index(model)

    def cached(self, prompt: int) -> int:
        """Tokens of a prompt that the prefix cache holds: whole blocks, and never all."""
        return min(prompt - 1, int(prompt * self.hits / CACHE_BLOCK) * CACHE_BLOCK)


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that is asked for: `length` tokens, of which the last ends it for `reason`."""

    prompt: int  # tokens
    cached: int  # of these, found in the prefix cache
    key: bytes
    length: int
    reason: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a request for a text, or for a call of a function, comes to."""

    chat: bool
    choices: tuple[Choice, ...]
    prompt_tokens: int  # of all prompts, each counted once
    stops: tuple[str, ...]
    min_tokens: int
    max_tokens: int
    stream: bool
    usage: bool
    usage_always: bool
    priority: int
    logprobs: int  # -1: none, else how many alternatives
    tool: str = ""  # function that is called; empty: none
    adapter: int = -1  # that it names; -1: none


_tools: Final = msgspec.json.Decoder(list[_Tool] | None)
_tool_choice: Final = msgspec.json.Decoder(str | _Tool | None)
_chat: Final = msgspec.json.Decoder(ChatBody)
_completion: Final = msgspec.json.Decoder(CompletionBody)
_embedding: Final = msgspec.json.Decoder(EmbeddingBody)


def read_chat(data: bytes, limits: ServedLimits) -> GenerationRequest:
    """A chat request.

    Raises:
        Refused: it is not one, names another model, or does not fit into the context.
    """
    try:
        body = _chat.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error) from None
    if not body.messages:
        raise Refused(400, "messages must not be empty", param="messages")
    tokens = sum(TOKENS_PER_MESSAGE + _message_tokens(message) for message in body.messages)
    tokens += tokens_of(len(bytes(body.tools)))
    spoken = msgspec.json.encode(body.messages)
    most = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    alternatives = (body.top_logprobs or 0) if body.logprobs else -1
    tool = tool_to_call(body.tools, body.tool_choice)
    return ask_of(body, [(tokens, spoken)], limits, most=most, logprobs=alternatives, tool=tool)


def read_completion(data: bytes, limits: ServedLimits) -> GenerationRequest:
    """A completion request; the prompts are text or numbers of tokens.

    Raises:
        Refused: as for `read_chat`.
    """
    try:
        body = _completion.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error) from None
    most = _DEFAULT_COMPLETION if body.max_tokens is None and not body.ignore_eos else body.max_tokens
    alternatives = -1 if body.logprobs is None else body.logprobs
    return ask_of(body, _prompts(body.prompt, "prompt"), limits, most=most, logprobs=alternatives)


def read_embedding(data: bytes, limits: ServedLimits) -> tuple[EmbeddingBody, list[tuple[int, bytes]]]:
    """An embedding request: its body, and (tokens, bytes) of each input.

    Raises:
        Refused: as for `read_chat`.
    """
    try:
        body = _embedding.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error) from None
    limits.adapter_of(body.model)
    prompts = _prompts(body.input, "input")
    for tokens, _ in prompts:
        _check_room(tokens, 0, limits)
    return body, prompts


def malformed(error: msgspec.MsgspecError | UnicodeDecodeError) -> Refused:
    """The answer to a body that cannot be read."""
    return Refused(400, f"the body is not as it should be: {error}")


def tool_to_call(tools: msgspec.Raw, choice: msgspec.Raw) -> str:
    """Name of the function that has to be called, as `required` or a name says; empty: none, for nothing has to be.

    Raises:
        Refused: they are not as they should be, or the one that is named is not among them.
    """
    try:
        given = (_tools.decode(tools) if bytes(tools) else None) or []
        wanted: str | _Tool | None = _tool_choice.decode(choice) if bytes(choice) else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Refused(400, f"tools or tool_choice are not as they should be: {error}", param="tools") from None
    known: list[str] = [one.called for one in given if one.type == "function"]
    if "" in known:
        number = next(i for i, one in enumerate(given) if one.type == "function" and not one.called)
        raise Refused(400, f"tools[{number}] is a function without a name", param=f"tools[{number}].name")
    if wanted is None or wanted in ("auto", "none"):
        return ""
    if wanted == "required" and known:
        return known[0]
    if isinstance(wanted, _Tool) and wanted.called in known:
        return wanted.called
    raise Refused(400, "tool_choice asks for a function that is not among the tools", param="tool_choice")


def _message_tokens(message: _Message) -> int:
    tokens = tokens_of(len(bytes(message.tool_calls)))
    match message.content:
        case str(text):
            return tokens + tokens_of(len(text.encode()))
        case list(parts):
            return tokens + sum(tokens_of(len(p.text.encode())) if p.type == "text" else TOKENS_PER_IMAGE for p in parts)
        case _:
            return tokens


def _prompts(given: _Prompts, param: str) -> list[tuple[int, bytes]]:
    """(tokens, bytes) of each prompt."""
    if isinstance(given, str):
        return [(max(1, tokens_of(len(given.encode()))), given.encode())]
    if not given:
        raise Refused(400, f"{param} must not be empty", param=param)
    if all(isinstance(one, int) for one in given):
        return [(len(given), msgspec.json.encode(given))]
    found = []
    for one in given:
        match one:
            case str():
                found.append((max(1, tokens_of(len(one.encode()))), one.encode()))
            case list():
                found.append((max(1, len(one)), msgspec.json.encode(one)))
            case _:
                raise Refused(400, f"{param} mixes numbers of tokens with texts or lists", param=param)
    return found


def _check_room(tokens: int, most: int, limits: ServedLimits) -> None:
    if tokens + max(1, most) > limits.context:
        raise Refused(
            400,
            f"This model's maximum context length is {limits.context} tokens. However, you requested {tokens + most} tokens "
            f"({tokens} in the input, {most} for the output). Please reduce the length of the input or of the output.",
        )


def ask_of(  # what each API calls by its own names
    body: AskedBody, prompts: list[tuple[int, bytes]], limits: ServedLimits, *, most: int | None, logprobs: int, tool: str = ""
) -> GenerationRequest:
    """What a body comes to.

    Raises:
        Refused: it names another model, does not fit into the context, or asks for what cannot be.
    """
    adapter = limits.adapter_of(body.model)
    if most is not None and most < 1:
        raise Refused(400, f"max_tokens must be at least 1, got {most}", param="max_tokens")
    count = 1 if body.n is None else body.n
    if not 1 <= count <= _CHOICES_MAX:
        raise Refused(400, f"n must be between 1 and {_CHOICES_MAX}, got {count}", param="n")
    least = body.min_tokens or 0
    if most is not None and least > most:
        raise Refused(400, f"min_tokens must not exceed max_tokens={most}, got {least}", param="min_tokens")
    for tokens, _ in prompts:
        _check_room(tokens, most or 0, limits)
    stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    options = body.stream_options or _StreamOptions()
    longest = limits.context - min(tokens for tokens, _ in prompts)
    return GenerationRequest(
        chat=not isinstance(body, CompletionBody),
        choices=tuple(_choice(body, p, i, limits, most) for p in prompts for i in range(count)),
        prompt_tokens=sum(tokens for tokens, _ in prompts),
        stops=tuple(stop for stop in stops if stop),
        min_tokens=least,
        max_tokens=longest if most is None else most,
        stream=bool(body.stream),
        usage=bool(options.include_usage),
        usage_always=bool(options.continuous_usage_stats),
        priority=body.priority or 0,
        logprobs=logprobs,
        tool=tool,
        adapter=adapter,
    )


def _choice(body: AskedBody, prompt: tuple[int, bytes], index: int, limits: ServedLimits, most: int | None) -> Choice:
    tokens, text = prompt
    key = key_of(text, str(body.seed or 0).encode(), str(index).encode())
    room, cached = limits.context - tokens, limits.cached(tokens)
    most = room if most is None else most
    if body.ignore_eos:
        return Choice(tokens, cached, key, most, "length")
    length = max(limits.lengths.draw(key), body.min_tokens or 0)
    return Choice(tokens, cached, key, most, "length") if length >= most else Choice(tokens, cached, key, length, "stop")
