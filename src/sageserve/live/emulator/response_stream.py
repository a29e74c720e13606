"""One request while it is answered: its sequences in the batch, and what is sent for each of their tokens.

Knows no clock and no other request. Read next: `answers.py` for the bytes, `engine.py` for who calls it.
"""

from collections.abc import Callable

from sageserve.base.units import Micros
from sageserve.live.emulator.answers import Answer
from sageserve.live.emulator.batch import Sequence
from sageserve.live.emulator.connection import EngineReply
from sageserve.live.emulator.requests import Choice, GenerationRequest
from sageserve.live.emulator.responses_api import ResponsesAnswer
from sageserve.live.emulator.text import Words, cut_at_stop


class ChoiceStream(Sequence):
    """One choice of a request in the batch.

    Args:
        request_stream: the request it belongs to.
        index: of the choice.
        choice: what was asked.
        number: of the sequence.
        arrival: when the request came.
    """

    __slots__ = ("_made_ahead", "_words", "index", "pieces", "reason", "request_stream")

    def __init__(self, request_stream: "RequestStream", index: int, choice: Choice, *, number: int, arrival: Micros) -> None:
        ask = request_stream.ask
        self.request_stream = request_stream
        self.index = index
        self.reason: str = choice.reason
        self.pieces: list[str] = []  # said so far, when they are needed at the end
        self._words = Words(choice.key)
        self._made_ahead: list[str] | None = None
        length = choice.length
        if ask.stops:
            ahead = [self._words.next() for _ in range(length)]
            cut = cut_at_stop(ahead, ask.stops, earliest=ask.min_tokens)
            self._made_ahead = ahead if cut is None else cut
            if cut is not None:
                length, self.reason = len(cut), "stop"
        asked = {"priority": ask.priority, "cached": choice.cached, "adapter": ask.adapter}
        super().__init__(number, prompt=choice.prompt, output=length, arrival=arrival, **asked)

    def say(self) -> str:
        """The text of the latest token."""
        return self._words.next() if self._made_ahead is None else self._made_ahead[self.made - 1]


class RequestStream:
    """A request that is being answered.

    Args:
        ask: what was asked.
        head: makes the bytes.
        reply: where they go.
        reset_after: the connection is cut after so many tokens (a fault).
        over: called when nothing more is to be made.
    """

    def __init__(
        self,
        ask: GenerationRequest,
        head: Answer | ResponsesAnswer,
        reply: EngineReply,
        *,
        reset_after: int | None,
        over: "Callable[[RequestStream], None]",
    ) -> None:
        self.ask = ask
        self.everyone: list[ChoiceStream] = []
        self._head = head
        self._reply = reply
        self._reset_after = reset_after
        self._over = over
        self._open = len(ask.choices)
        self._tokens = 0

    def begin(self, number: int, arrival: Micros) -> None:
        """Make the sequences, one per choice, which enter the queue at `arrival`; the answer begins."""
        if self.ask.stream:
            self._reply.begin_stream()
        for index, choice in enumerate(self.ask.choices):
            self.everyone.append(ChoiceStream(self, index, choice, number=number + index, arrival=arrival))

    def token(self, choice_stream: ChoiceStream) -> None:
        """A sequence has one token more."""
        self._tokens += 1
        piece = choice_stream.say()
        if not self.ask.stream:
            choice_stream.pieces.append(piece)
        elif choice_stream.made < choice_stream.output:
            if choice_stream.made == 1 and self.ask.chat:
                self._reply.chunk(self._head.role(choice_stream.index))
            self._reply.chunk(self._head.word(choice_stream.index, piece, choice_stream.made))
        else:
            if choice_stream.made == 1 and self.ask.chat:
                self._reply.chunk(self._head.role(choice_stream.index))
            self._reply.chunk(self._head.last(choice_stream.index, piece, choice_stream.reason, choice_stream.made))
        if self._reset_after is not None and self._tokens >= self._reset_after:
            self._cut(choice_stream)
        elif choice_stream.made >= choice_stream.output:
            self._open -= 1
            if not self._open:
                self._end()

    def _end(self) -> None:
        if self.ask.stream:
            self._reply.chunk(self._head.ending(self._tokens))
            self._reply.end()
        else:
            everyone = self.everyone
            self._reply.send(200, self._head.body([v.pieces for v in everyone], [v.reason for v in everyone]))
        self._over(self)

    def _cut(self, choice_stream: ChoiceStream) -> None:
        """Drop the connection; the rest is aborted when the loop hears that the client is gone."""
        self._reset_after = None
        self._reply.cut()
