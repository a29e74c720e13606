"""Made-up text: how many tokens a prompt has, how long its answer is, and which words it consists of.

All of it follows from the prompt and the seed, so that equal requests get equal answers from any engine. A token is four
bytes of a prompt and one word of an answer. Knows no request format. Read next: `requests.py`, `answers.py`.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

from sageserve.base.rng import stream

BYTES_PER_TOKEN: Final = 4  # of English, with the vocabularies of 32 k to 128 k tokens of today's models
TOKENS_PER_MESSAGE: Final = 4  # role and separators of a chat template
TOKENS_PER_IMAGE: Final = 576  # LLaVA-1.5's 24 x 24 patches; what else is not text counts the same
_SPREAD: Final = 0.7  # sigma of ln(length): the p95 is 2.5 times the mean, about what conversations show

_TEXT: Final = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were
all her she there would their we him been has when who will no more if out so up said what its about than into them can only
other time new some could these two may first then do any like my now over such our man me even most made after also did many
off before must well back through years much where your way down should because long each just state those people too how
little good world make very year still see own work men day get here old life both between being under three never know same
last another while us might great go come since against right came take used himself few house use during without again place
around however home small found thought went say part once general high upon school every
"""
WORDS: Final = tuple(f" {word}" for word in _TEXT.split())
"""Frequent words of English, each with a space in front: one is one token."""


def tokens_of(size: int) -> int:
    """Tokens of so many bytes of text."""
    return -(-size // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class AnswerLengths:
    """How long answers are when the request does not fix it: log-normal, with this mean in tokens."""

    mean: float
    seed: int = 0

    def draw(self, key: bytes) -> int:
        """Length of the answer to what `key` stands for; at least 1."""
        numbers = stream(self.seed, f"engine/length/{key.hex()}")
        length = numbers.lognormal(math.log(self.mean) - _SPREAD * _SPREAD / 2, _SPREAD)
        return max(1, round(float(length)))


def key_of(*parts: bytes) -> bytes:
    """Eight bytes that stand for a prompt (and choice): equal parts, equal key."""
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).digest()


class Words:
    """The words of one answer, one after the other.

    Args:
        key: of the prompt and choice.
    """

    __slots__ = ("_state",)

    def __init__(self, key: bytes) -> None:
        self._state = int.from_bytes(key, "big")

    def next(self) -> str:
        """The next word, with a space in front."""
        # Knuth's MMIX congruence; its high bits are good enough to look like text
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return WORDS[(self._state >> 33) % len(WORDS)]


def cut_at_stop(pieces: list[str], stops: tuple[str, ...], *, earliest: int) -> list[str] | None:
    """The pieces up to the first stop string, without it; None when none of them occurs.

    Args:
        pieces: one per token.
        stops: strings, none of them empty.
        earliest: tokens before which nothing stops (min_tokens).

    Returns:
        One piece per token that was made, the token that completed the stop string included (it is cut, or empty).
    """
    text = ""
    for count, piece in enumerate(pieces, start=1):
        before = len(text)
        text += piece
        if count < earliest:
            continue
        longest = max(map(len, stops))
        found = [at for stop in stops if (at := text.find(stop, max(0, before - longest + 1))) >= 0]
        if found:
            return _clipped(pieces[:count], min(found))
    return None


def _clipped(pieces: list[str], length: int) -> list[str]:
    out = []
    for piece in pieces:
        out.append(piece[:length])
        length = max(0, length - len(piece))
    return out
