"""What engines answer: events and JSON bodies, with the tier that was really used put into them.

Nothing is parsed that need not be: a raw line break, and the bytes `"key":`, cannot stand inside a JSON string, so events, fields
and their ends are found by searching bytes. The tier is inserted after the first brace of each object that does not state
one, and replaces what an engine states. Knows no socket. Read next: `exchange.py`, the caller.
"""

import re
from collections import deque
from typing import Final, TypeAlias

import orjson

from sageserve.base.errors import SageServeError

EVENT_MAX: Final = 16 << 20  # bytes of one event: an image in one answer; beyond it an engine is not to be trusted
_KEY: Final = b'"service_tier"'
_STATED: Final = re.compile(rb'"service_tier"(\s*):\s*(?:null|"(?:[^"\\]|\\.)*")')
_OPENS: Final = re.compile(rb'\A\s*\{(?=\s*")')
_BLANK: Final = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_DATA: Final = re.compile(rb'(?:\A|[\r\n])data: ?\{(?=\s*")')
_DONE: Final = re.compile(rb"(?:\A|[\r\n])data: ?\[DONE\]\s*\Z")
_USAGE_KEY: Final = b'"usage"'
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')
_PROMPT: Final = re.compile(rb'"(?:prompt_tokens|input_tokens)"\s*:\s*([0-9]{1,15})')
_ANSWER: Final = re.compile(rb'"(?:completion_tokens|output_tokens)"\s*:\s*([0-9]{1,15})')
_USUAL: Final = re.compile(
    rb'"usage"\s*:\s*\{\s*"prompt_tokens"\s*:\s*([0-9]{1,15})[^0-9{}][^{}]*?"completion_tokens"\s*:\s*([0-9]{1,15})'
)
_TAIL: Final = 4096  # bytes at the end of an answer in which its usage stands with most engines
_COMPLETED: Final = re.compile(rb"(?:\A|\n)event: ?(?:response\.(?:completed|failed|incomplete)|message_stop)\r?\n")


Names: TypeAlias = tuple[re.Pattern[bytes], bytes]
"""How an engine states its name of the model, and the member that states the client's."""


class Overlong(SageServeError):
    """An engine sent an event that does not end."""


class SseTagger:
    """Server-sent events on their way: `feed` gives the ones that are whole, tagged.

    Args:
        tag: the member to insert, such as b'"service_tier":"default",'.
        insert: false: replace what is stated, insert nothing (an event of the Responses or Messages API is no answer object).
        names: how to bring back the client's name of the model, when the engine has another.

    `count` is how many events passed, `done` that the last one did, after which nothing may follow.
    """

    __slots__ = ("_first", "_front", "_insert", "_names", "_rest", "_swap", "_tag", "_told", "count", "done")

    def __init__(self, tag: bytes, *, insert: bool = True, names: Names | None = None) -> None:
        self._tag = tag
        self._front = b"data: {" + tag
        self._swap = b"\n\n" + self._front
        self._insert = insert
        self._names = names
        self._rest = b""
        self._told = b""  # the last event that says what the answer took
        self._first = b""  # the first one: the Messages API tells the prompt's tokens in it, and in no other
        self.count = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now.

        Raises:
            Overlong: one exceeds EVENT_MAX.
        """
        if (
            self._rest
            or data[-2:] != b"\n\n"
            or not self._insert
            or self._names is not None
            or data[:8] != b'data: {"'
            or _KEY in data
            or b"\r" in data
        ):
            return self._feed(data)
        if _USAGE_KEY in data and _USAGE.search(data):
            self._told = data
        if data.find(b"\n\n") == len(data) - 2:
            self.count += 1
            return self._front + data[7:]
        self.count += data.count(b"\n\n")
        if data.endswith(b"data: [DONE]\n\n"):
            self.done = True
        return self._front + data[7:].replace(b'\n\ndata: {"', self._swap + b'"')

    def _feed(self, data: bytes) -> bytes:
        data = self._rest + data
        out, at = [], 0
        for blank in _BLANK.finditer(data):
            if blank[0][-1:] == b"\r" and blank.end() == len(data):
                break  # the line feed of the second CRLF may be about to come
            out.append(self._event(data[at : blank.end()]))
            at = blank.end()
            if self.done:
                break
        self._rest = data[at:] if not self.done else b""
        if len(self._rest) > EVENT_MAX:
            raise Overlong(f"an engine sent an event of more than {EVENT_MAX} bytes")
        return b"".join(out)

    def _event(self, event: bytes) -> bytes:
        self.count += 1
        if _USAGE_KEY in event and _USAGE.search(event):
            self._first = self._first or event
            self._told = event
        if _DONE.search(event) or (not self._insert and _COMPLETED.search(event)):
            self.done = True
        if self._names is not None:
            event = rename(event, self._names)
        if _KEY in event:
            changed, found = _STATED.subn(self._tag[:-1], event)
            if found:
                return changed
        if self._insert and (start := _DATA.search(event)):
            return event[: start.end()] + self._tag + event[start.end() :]
        return event

    def end(self) -> bytes:
        """What is left when the engine ends its answer; an event without its empty line counts."""
        rest, self._rest = self._rest, b""
        return self._event(rest.rstrip() + b"\n\n") if rest.strip() and not self.done else b""

    def usage(self) -> tuple[int | None, int]:
        """Tokens of the prompt (None: not said) and of the answer, as events said last; else one token per event is assumed."""
        prompt, answer = usage_of(self._told)
        if prompt is None:
            prompt = usage_of(self._first)[0]
        return prompt, answer if answer is not None else max(0, self.count - 2)

    @property
    def made(self) -> int:
        """Tokens of an answer that was broken off: one per event that came, but for the one that only has the role."""
        return max(self.usage()[1], self.count - 1)


def names_of(served: str, model: str) -> Names:
    """What to replace when an engine knows a model by another name than clients do."""
    return re.compile(rb'"model"\s*:\s*' + re.escape(orjson.dumps(served))), b'"model":' + orjson.dumps(model)


def rename(text: bytes, names: Names) -> bytes:
    """A JSON text with the model under the name the client knows."""
    pattern, member = names
    return pattern.sub(lambda _: member, text)


def usage_of(text: bytes) -> tuple[int | None, int | None]:
    """Tokens of prompt and answer that the last `usage` in a text states."""
    at = text.rfind(_USAGE_KEY, -_TAIL)
    usual = _USUAL.match(text, at) if at >= 0 else None
    if usual is not None:
        return int(usual[1]), int(usual[2])
    found = _USAGE.match(text, at) if at >= 0 else None
    if found is None:
        found = next(iter(deque(_USAGE.finditer(text), maxlen=1)), None)  # the last one, wherever it stands
    if found is None:
        return None, None
    prompt, answer = _PROMPT.search(text, found.end()), _ANSWER.search(text, found.end())
    return (int(prompt[1]) if prompt else None), (int(answer[1]) if answer else None)


def tag_body(body: bytes, tag: bytes, names: Names | None) -> bytes:
    """A JSON answer with the tier in it, and the model under the name the client knows."""
    if names is not None:
        body = rename(body, names)
    if _KEY in body:
        changed, found = _STATED.subn(tag[:-1], body)
        if found:
            return changed
    if body[:2] == b'{"':
        return b"{" + tag + body[1:]
    opens = _OPENS.match(body)
    return body if opens is None else body[: opens.end()] + tag + body[opens.end() :]
