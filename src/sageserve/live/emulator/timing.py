"""How long an iteration takes: the engine model of `core/perf.py` as plain Python.

Written again, because importing the compiled one loads a compiler: half a second and a hundred megabytes for each of many
small processes. A test holds both to equal results. Knows no queue. Read next: `batch.py`, docs/reference/kernel.md.
"""

from dataclasses import dataclass

from sageserve.base.config import ProfileSettings
from sageserve.base.units import Micros


@dataclass(frozen=True, slots=True)
class Timing:
    """Coefficients in microseconds and limits in tokens and sequences; the fields are those of `core.perf.PROFILE`."""

    base: float
    prefill: float
    decode: float
    kv: float
    attention: float
    floor: float
    kv_tokens: int
    max_sequences: int
    max_batched: int
    chunked: bool
    caching: bool = False
    entry: Micros = 0

    @classmethod
    def of(cls, profile: ProfileSettings) -> "Timing":
        """The timing of a profile."""
        return cls(
            base=profile.base_ms * 1e3,
            prefill=profile.prefill_us_per_token,
            decode=profile.decode_us_per_sequence,
            kv=profile.kv_ns_per_token * 1e-3,
            attention=profile.attention_ns_per_token2 * 1e-3,
            floor=profile.prefill_floor_ms * 1e3,
            kv_tokens=profile.kv_tokens,
            max_sequences=profile.max_sequences,
            max_batched=profile.max_batched_tokens,
            chunked=profile.chunked,
            caching=profile.prefix_caching,
            entry=round(profile.first_token_ms * 1e3),
        )

    def iteration(self, prefill: float, attention: float, sequences: int, kv: int) -> float:
        """Microseconds of one iteration; the arguments are those of `core.perf.iteration_time`."""
        time = self.base + self.prefill * prefill + self.decode * sequences + self.kv * kv + self.attention * attention
        return self.floor if sequences == 0 and time < self.floor else time

    def whole(self, time: float) -> Micros:
        """Whole microseconds of an iteration, at least one: time must go on."""
        return max(1, int(time + 0.5))
