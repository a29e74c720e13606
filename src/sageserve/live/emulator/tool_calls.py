"""Chat answers that call a function: its arguments are an object with one text of made-up words, a token a word.

Knows no socket and no timing. Read next: `requests.py` for which function, `answers.py`, `responses_api.py`.
"""

from typing import Final

from sageserve.live.emulator.answers import Answer, Json, encode, usage

OPENS: Final = '{"text": "'
CLOSES: Final = '"}'


def arguments_of(pieces: list[str]) -> str:
    """The arguments that so many tokens make."""
    return OPENS + "".join(pieces).strip() + CLOSES


class ToolAnswer(Answer):
    """A chat answer that calls a function in each of its choices."""

    def role(self, index: int) -> bytes:
        """The first chunk of a choice: which function."""
        call: Json = {"index": 0, **self._call(index, "")}
        return self._event(index, {"delta": {"role": "assistant", "content": None, "tool_calls": [call]}}, None, None, 0)

    def word(self, index: int, piece: str, made: int) -> bytes:
        """The chunk of one token of the arguments."""
        return self._event(index, self._part(piece, made), None, None, made)

    def last(self, index: int, piece: str, reason: str, made: int) -> bytes:
        """The chunk of the last token; arguments that were cut off are no JSON."""
        whole = self._part(piece, made, closes=reason == "stop")
        return self._event(index, whole, "tool_calls" if reason == "stop" else reason, None, made)

    def body(self, texts: list[list[str]], reasons: list[str]) -> bytes:
        """The whole answer."""
        choices: list[Json] = []
        for index, (pieces, reason) in enumerate(zip(texts, reasons, strict=True)):
            arguments = arguments_of(pieces) if reason == "stop" else arguments_of(pieces).removesuffix(CLOSES)
            calls: list[Json] = [self._call(index, arguments)]
            message: Json = {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
            ended = "tool_calls" if reason == "stop" else reason
            choices.append({"index": index, "message": message, "logprobs": None, "finish_reason": ended})
        output = sum(map(len, texts))
        return encode(self._head | {"choices": choices, "usage": usage(self.ask.prompt_tokens, output)})

    def _call(self, index: int, arguments: str) -> dict[str, Json]:
        return {
            "id": f"call_{self.name}_{index}",
            "type": "function",
            "function": {"name": self.ask.tool, "arguments": arguments},
        }

    def _part(self, piece: str, made: int, *, closes: bool = False) -> dict[str, Json]:
        text = (OPENS + piece.lstrip() if made == 1 else piece) + (CLOSES if closes else "")
        call: Json = {"index": 0, "function": {"arguments": text}}
        return {"delta": {"tool_calls": [call]}}
