"""Prompts of a wanted number of tokens that no prefix cache has seen, without knowing the engine's tokenizer.

Engines that take lists of token numbers (vLLM, SGLang) get random ones: exact. Others get random words, as many as two trials
have shown to be needed: near, and what counts is what the engine reports. Draws nothing itself: generators are passed in.
Read next: `shape.py`, which makes the trials.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

TOKEN_LOW: Final = 1_000  # below lie bytes, control tokens (Mistral's first thousand) and other special ones
TOKEN_HIGH: Final = 4_000  # vocabularies of generating models are larger than this
_WORDS: Final = (
    *("river", "table", "seven", "green", "winter", "paper", "stone", "music", "garden", "window", "bread", "letter"),
    *("morning", "silver", "road", "market", "island", "summer", "doctor", "forest", "number", "circle", "orange"),
    *("button", "camera", "dinner", "engine", "finger", "ground", "hammer", "insect", "jacket", "kitchen", "ladder"),
)


@dataclass(frozen=True, slots=True)
class TokenPrompts:
    """Lists of token numbers: exactly as long as wanted."""

    def make(self, tokens: int, rng: np.random.Generator) -> list[int]:
        """A prompt of that many tokens."""
        numbers: list[int] = rng.integers(TOKEN_LOW, TOKEN_HIGH, max(tokens, 1)).tolist()
        return numbers


@dataclass(frozen=True, slots=True)
class WordPrompts:
    """Random words: about as long as wanted.

    Args:
        fixed: tokens of a prompt without any word (chat template, start token).
        per_word: tokens of one word.
    """

    fixed: float = 0.0
    per_word: float = 1.0

    def make(self, tokens: int, rng: np.random.Generator) -> str:
        """A prompt of about that many tokens; its beginning is its own."""
        count = max(1, round((tokens - self.fixed) / self.per_word))
        chosen: list[int] = rng.integers(0, len(_WORDS), count).tolist()
        return " ".join(_WORDS[number] for number in chosen)


Prompts: TypeAlias = TokenPrompts | WordPrompts


def words_from_trials(short: tuple[int, int], long: tuple[int, int]) -> WordPrompts:
    """How many tokens a word has, from two trials of (words sent, prompt tokens reported)."""
    per_word = (long[1] - short[1]) / (long[0] - short[0])
    if per_word <= 0:
        return WordPrompts()
    return WordPrompts(fixed=short[1] - per_word * short[0], per_word=per_word)
