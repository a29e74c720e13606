"""What each instance was sent of prompts: with `routing.instance: affinity` a request goes where its beginning may be cached.

No tokenizer: the bytes of a body from its messages on are cut into blocks, each known by a checksum of all bytes up to its end.
An instance is taken to keep as many as its KV memory has tokens for, at four bytes a token; the least recently sent go first.
This gateway knows what it sent itself, and nothing of what other gateways sent or what an engine threw away. Knows no endpoint
and no clock. Read next: `routing_state.py`, which asks it; `core/route.py` for the decision.
"""

from collections.abc import Sequence
from typing import Final, Protocol
from zlib import crc32

from sageserve.live.gateway.python_kernels import pick_affine, pick_instance

BLOCK: Final = 512  # bytes: about 128 tokens, eight blocks of vLLM's
TOKEN_BYTES: Final = 4  # bytes per token of English text, as tokenizers of today cut it
BLOCKS_MAX: Final = 2048  # of one body, its first megabyte: a longer one is no chat
_BEGINNINGS: Final = (b'"messages"', b'"prompt"', b'"input"')  # what comes before them in a body differs from turn to turn


class PromptMemory:
    """Blocks that one instance was sent, least recently sent first.

    Args:
        kv_tokens: that the instance can hold.
    """

    __slots__ = ("_blocks", "_room")

    def __init__(self, kv_tokens: int) -> None:
        self._blocks: dict[int, None] = {}
        self._room = max(1, kv_tokens * TOKEN_BYTES // BLOCK)

    def __len__(self) -> int:
        return len(self._blocks)

    def found(self, keys: Sequence[int]) -> int:
        """Blocks from the beginning that are remembered: none is without those before it, so halving finds the last."""
        low, high = 0, len(keys)
        while low < high:
            middle = (low + high) // 2
            if keys[middle] in self._blocks:
                low = middle + 1
            else:
                high = middle
        return low

    def note(self, keys: Sequence[int]) -> None:
        """A prompt of these blocks is sent; the last of it goes before what leads to it."""
        blocks = self._blocks
        for key in reversed(keys):
            blocks.pop(key, None)
            blocks[key] = None
        while len(blocks) > self._room:
            del blocks[next(iter(blocks))]


class Beginning:
    """How a request's prompt begins.

    Args:
        body: of the request, JSON.
        prompt: tokens that its prompt is taken for.
        overlap: what a token that is found counts for (`routing.overlap`).
    """

    __slots__ = ("_each", "keys", "overlap", "prompt")

    def __init__(self, body: bytes, prompt: int, overlap: float) -> None:
        self.keys = keys_of(body)
        self.prompt = prompt
        self.overlap = overlap
        self._each = prompt * BLOCK / max(len(body), 1)  # tokens of a block

    def found(self, memory: PromptMemory) -> int:
        """Tokens of the prompt that an instance is taken to have; one at least is always left to compute."""
        return min(int(memory.found(self.keys) * self._each), self.prompt - 1)


def keys_of(body: bytes) -> list[int]:
    """A key for each whole block from the messages of a body on: its place, and a checksum of all bytes up to its end."""
    begin = max(0, next((at for word in _BEGINNINGS if (at := body.find(word)) >= 0), 0))
    view, keys, total = memoryview(body), [], 0
    for number in range(min((len(body) - begin) // BLOCK, BLOCKS_MAX)):
        total = crc32(view[begin + number * BLOCK : begin + (number + 1) * BLOCK], total)
        keys.append(number << 32 | total)
    return keys


ANY_BEGINNING: Final = Beginning(b"", 1, 0.0)
"""Of requests that are routed by load alone: nobody has anything of them."""


class RemembersPrompts(Protocol):
    """An instance as a choice."""

    prompts: PromptMemory
    weight: int


def pick(asked: Beginning, outstanding: Sequence[int], targets: Sequence[RemembersPrompts]) -> int:
    """Which of these targets takes a request: the one with the least work, less what it has of the prompt.

    Args:
        asked: how the prompt begins; ANY_BEGINNING: load alone counts.
        outstanding: weighted outstanding tokens of each target, of which there is one at least.
        targets: that may be chosen.
    """
    if not asked.keys:
        return pick_instance(outstanding, 0, len(outstanding))
    found = [asked.found(target.prompts) for target in targets]
    return pick_affine(asked.overlap, asked.prompt, outstanding, 0, found, [target.weight for target in targets])
