"""The Responses API: its request, and the bytes of its answers, whole and streamed, with a text or a function call.

A stream is steps of one response: created, an item that grows, and completed with all of it and the usage. Nothing is kept, so
`previous_response_id` is refused. Knows no socket and no timing. Read next: `requests.py`, `tool_calls.py`, `engine.py`.
"""

from typing import Final

import msgspec

from sageserve.live.emulator.answers import Json, encode
from sageserve.live.emulator.requests import AskedBody, GenerationRequest, Refused, ServedLimits, ask_of, malformed, tool_to_call
from sageserve.live.emulator.text import TOKENS_PER_MESSAGE, tokens_of
from sageserve.live.emulator.tool_calls import CLOSES, OPENS, arguments_of


class ResponsesBody(AskedBody, kw_only=True):
    """Of /v1/responses."""

    input: str | list[msgspec.Raw]
    instructions: str | None = None
    max_output_tokens: int | None = None
    previous_response_id: str | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    tool_choice: msgspec.Raw = msgspec.Raw(b"")


_responses: Final = msgspec.json.Decoder(ResponsesBody)


def read_response(data: bytes, limits: ServedLimits) -> GenerationRequest:
    """A request of the Responses API.

    Raises:
        Refused: it is not one, names another model, does not fit into the context, or goes on from an answer.
    """
    try:
        body = _responses.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise malformed(error) from None
    if body.previous_response_id:
        raise Refused(400, "no response is kept here: send the whole input", param="previous_response_id")
    parts = [body.input.encode()] if isinstance(body.input, str) else [bytes(one) for one in body.input]
    if not parts:
        raise Refused(400, "input must not be empty", param="input")
    parts += [body.instructions.encode()] if body.instructions else []
    tokens = sum(TOKENS_PER_MESSAGE + tokens_of(len(part)) for part in parts) + tokens_of(len(bytes(body.tools)))
    tool = tool_to_call(body.tools, body.tool_choice)
    return ask_of(body, [(tokens, b"\0".join(parts))], limits, most=body.max_output_tokens, logprobs=-1, tool=tool)


class ResponsesAnswer:
    """One response.

    Args:
        ask: what was asked.
        name: id of the response, without its prefix.
        created: unix seconds.
        model: name of the model.
    """

    def __init__(self, ask: GenerationRequest, name: str, created: int, model: str) -> None:
        self.ask = ask
        self._name = name
        self._created = created
        self._model = model
        self._pieces: list[str] = []
        self._reason = "stop"
        self._number = 0

    def role(self, _index: int) -> bytes:
        """The steps before the first token."""
        begun = self._response("in_progress", [], None)
        out = self._step("response.created", {"response": begun}) + self._step("response.in_progress", {"response": begun})
        out += self._step("response.output_item.added", {"output_index": 0, "item": self._item("in_progress")})
        if self.ask.tool:
            return out
        return out + self._step("response.content_part.added", {**self._at, "content_index": 0, "part": self._part("")})

    def word(self, _index: int, piece: str, _made: int) -> bytes:
        """The step of one token."""
        self._pieces.append(piece)
        if self.ask.tool:
            delta = OPENS + piece.lstrip() if len(self._pieces) == 1 else piece
            return self._step("response.function_call_arguments.delta", {**self._at, "delta": delta})
        return self._step("response.output_text.delta", {**self._at, "content_index": 0, "delta": piece, "logprobs": []})

    def last(self, index: int, piece: str, reason: str, made: int) -> bytes:
        """The steps of the last token, and of the end of the item."""
        out = self.word(index, piece, made)
        self._reason = reason
        if self.ask.tool:
            if reason == "stop":
                out += self._step("response.function_call_arguments.delta", {**self._at, "delta": CLOSES})
            said: dict[str, Json] = {"arguments": self._said, "name": self.ask.tool}
            out += self._step("response.function_call_arguments.done", {**self._at, **said})
        else:
            text: dict[str, Json] = {"content_index": 0, "text": self._said, "logprobs": []}
            out += self._step("response.output_text.done", {**self._at, **text})
            part: dict[str, Json] = {"content_index": 0, "part": self._part(self._said)}
            out += self._step("response.content_part.done", {**self._at, **part})
        return out + self._step("response.output_item.done", {"output_index": 0, "item": self._item(self._status)})

    def ending(self, output: int) -> bytes:
        """The last step: all of it."""
        whole = self._response(self._status, [self._item(self._status)], self._usage(output))
        return self._step(f"response.{self._status}", {"response": whole})

    def body(self, texts: list[list[str]], reasons: list[str]) -> bytes:
        """The whole answer."""
        (self._pieces,), (self._reason,) = texts, reasons
        return encode(self._response(self._status, [self._item(self._status)], self._usage(len(self._pieces))))

    @property
    def _status(self) -> str:
        return "completed" if self._reason == "stop" else "incomplete"

    @property
    def _said(self) -> str:
        if not self.ask.tool:
            return "".join(self._pieces)
        whole = arguments_of(self._pieces)
        return whole if self._reason == "stop" else whole.removesuffix(CLOSES)

    @property
    def _at(self) -> dict[str, Json]:
        return {"item_id": f"{'fc' if self.ask.tool else 'msg'}_{self._name}", "output_index": 0}

    def _step(self, kind: str, more: dict[str, Json]) -> bytes:
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, "sequence_number": self._number - 1, **more}))

    def _part(self, text: str) -> dict[str, Json]:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _item(self, status: str) -> dict[str, Json]:
        over = status != "in_progress"
        if self.ask.tool:
            call: dict[str, Json] = {"type": "function_call", "call_id": f"call_{self._name}", "name": self.ask.tool}
            return {"id": f"fc_{self._name}", **call, "arguments": self._said if over else "", "status": status}
        content: list[Json] = [self._part(self._said)] if over else []
        return {"id": f"msg_{self._name}", "type": "message", "role": "assistant", "status": status, "content": content}

    def _usage(self, output: int) -> dict[str, Json]:
        prompt, cached = self.ask.prompt_tokens, sum(choice.cached for choice in self.ask.choices)
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }

    def _response(self, status: str, output: list[Json], used: dict[str, Json] | None) -> dict[str, Json]:
        return {
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": self._created,
            "status": status,
            "model": self._model,
            "output": output,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "tool_choice": "required" if self.ask.tool else "auto",
            "tools": [],
            "temperature": 1.0,
            "top_p": 1.0,
            "usage": used,
        }
