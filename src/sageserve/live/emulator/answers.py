"""Answers: the bytes of bodies and of streamed chunks, as OpenAI's clients read them and vLLM writes them.

A chunk of one word is two halves made once per choice with the word between them: streams are most of an engine's work.
Knows no socket and no timing. Read next: `requests.py`, `engine.py`.
"""

from typing import Final, TypeAlias

import msgspec

from sageserve.live.emulator.requests import GenerationRequest, Refused, ServedLimits

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"

DONE: Final = b"data: [DONE]\n\n"
_LOGPROB: Final = -0.25  # every token is about equally sure
encode: Final = msgspec.json.encode


def usage(prompt: int, output: int) -> dict[str, Json]:
    """The `usage` object."""
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + output,
        "completion_tokens": output,
        "prompt_tokens_details": None,
    }


def error(refused: Refused) -> bytes:
    """The body of an error."""
    detail: Json = {"message": refused.message, "type": refused.kind, "param": refused.param, "code": refused.status}
    return encode({"error": detail})


def models(limits: ServedLimits, created: int) -> bytes:
    """The body of /v1/models."""
    return encode({"object": "list", "data": [_card(name, limits, created) for name in (limits.model, *limits.adapters)]})


def one_model(name: str, limits: ServedLimits, created: int) -> bytes:
    """The body of /v1/models/NAME."""
    return encode(_card(name, limits, created))


def _card(name: str, limits: ServedLimits, created: int) -> dict[str, Json]:
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "sageserve",
        "root": limits.model,
        "parent": None if name == limits.model else limits.model,
        "max_model_len": limits.context,
        "permission": [],
    }


def _logprobs(ask: GenerationRequest, pieces: list[str]) -> dict[str, Json] | None:
    if ask.logprobs < 0:
        return None
    if ask.chat:
        return {"content": [_token(piece, ask.logprobs) for piece in pieces]}
    tokens: list[Json] = [*pieces]
    offsets: list[Json] = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
    top: list[Json] = [{piece: _LOGPROB} for piece in pieces]
    values: list[Json] = [_LOGPROB] * len(pieces)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


def _token(piece: str, alternatives: int) -> dict[str, Json]:
    one: dict[str, Json] = {"token": piece, "logprob": _LOGPROB, "bytes": list(piece.encode())}
    return one | {"top_logprobs": [dict(one)] if alternatives else []}


class Answer:
    """The head that all chunks or the one body of an answer share.

    Args:
        ask: what was asked.
        name: id of the answer.
        created: unix seconds.
        model: name of the model.
    """

    def __init__(self, ask: GenerationRequest, name: str, created: int, model: str) -> None:
        self.ask = ask
        self.name = name
        kind = "chat.completion" if ask.chat else "text_completion"
        chunk = "chat.completion.chunk" if ask.chat else "text_completion"
        self._head: dict[str, Json] = {"id": name, "object": kind, "created": created, "model": model}
        self._chunk_head = self._head | {"object": chunk}
        opening = encode(self._chunk_head)[:-1]
        before = b',"delta":{"content":"' if ask.chat else b',"text":"'
        self._halves = [b'data: %b,"choices":[{"index":%d%b' % (opening, i, before) for i in range(len(ask.choices))]
        brace = b"}" if ask.chat else b""
        self._tail = b'"%b,"logprobs":null,"finish_reason":null}]%b}\n\n' % (brace, b',"usage":null' if ask.usage else b"")
        self._plain = ask.logprobs < 0 and not ask.usage_always

    def role(self, index: int) -> bytes:
        """The first chunk of a chat choice."""
        return self._event(index, {"delta": {"role": "assistant", "content": ""}}, None, None, 0)

    def word(self, index: int, piece: str, made: int) -> bytes:
        """The chunk of one token in mid-answer; `made` tokens were made so far."""
        if self._plain:
            return b"%b%b%b" % (self._halves[index], piece.encode(), self._tail)
        return self._event(index, self._piece(piece), None, [piece], made)

    def last(self, index: int, piece: str, reason: str, made: int) -> bytes:
        """The chunk of the last token."""
        return self._event(index, self._piece(piece), reason, [piece], made)

    def ending(self, output: int) -> bytes:
        """What follows the last chunk: the usage when it was asked for, and the end mark."""
        if not (self.ask.usage or self.ask.usage_always):
            return DONE
        whole = self._chunk_head | {"choices": [], "usage": usage(self.ask.prompt_tokens, output)}
        return b"data: " + encode(whole) + b"\n\n" + DONE

    def body(self, texts: list[list[str]], reasons: list[str]) -> bytes:
        """The whole answer; `texts` are the pieces of each choice."""
        choices: list[Json] = []
        for index, (pieces, reason) in enumerate(zip(texts, reasons, strict=True)):
            text = "".join(pieces)
            said: dict[str, Json] = {"text": text}
            if self.ask.chat:
                said = {"message": {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}}
            choices.append({"index": index, **said, "logprobs": _logprobs(self.ask, pieces), "finish_reason": reason})
        output = sum(map(len, texts))
        return encode(self._head | {"choices": choices, "usage": usage(self.ask.prompt_tokens, output)})

    def _piece(self, piece: str) -> dict[str, Json]:
        return {"delta": {"content": piece}} if self.ask.chat else {"text": piece}

    def _event(self, index: int, said: dict[str, Json], reason: str | None, pieces: list[str] | None, made: int) -> bytes:
        choice: dict[str, Json] = {"index": index, **said, "logprobs": _logprobs(self.ask, pieces) if pieces else None}
        whole: dict[str, Json] = self._chunk_head | {"choices": [choice | {"finish_reason": reason}]}
        if self.ask.usage_always:
            whole["usage"] = usage(self.ask.prompt_tokens, made)
        elif self.ask.usage:
            whole["usage"] = None
        return b"data: " + encode(whole) + b"\n\n"


def embeddings(vectors: list[Json], prompt_tokens: int, model: str) -> bytes:
    """The body of an embedding answer."""
    data: list[Json] = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(vectors)]
    count: Json = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
    return encode({"object": "list", "data": data, "model": model, "usage": count})
