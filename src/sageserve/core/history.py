"""What has arrived so far, bin by bin: the memory that forecasts are made from.

Filled from DemandSeen events, and from arrival history that is known from before the first instant. Holds sums per bin of
`BIN` microseconds; knows nothing newer than the last event. Read next: `forecast/`, `strategies/planned.py`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.errors import PlanError
from sageserve.base.records import Demand, Floats
from sageserve.base.units import HOUR, MINUTE, Micros
from sageserve.core.events import DemandSeen
from sageserve.core.pace import ANSWER_WIDTH
from sageserve.core.response import MIX_WIDTH, RequestMix, mix_of
from sageserve.core.unevenness import Unevenness

BIN: Final[Micros] = 15 * MINUTE
"""Length of a bin: four per hour, so that the 20th to the 60th minute of a forecast holds three."""

_MIX_FADE: Final[Micros] = 2 * HOUR  # half-life of the mix: what is asked for at noon is not what is asked for at night


class DemandHistory:
    """Sums per bin and (region, model, tier) of prompt tokens, requests, and engine time.

    Args:
        shape: numbers of regions, models and tiers.
        earlier: what arrived before the first instant; it ends at 0. None when nothing is known.
        home: int[regions, models, tiers], the region that what enters in another is counted in; None: where it enters.

    Raises:
        PlanError: `earlier` is of another shape, does not end at 0, or its bins do not divide BIN.
    """

    def __init__(
        self, shape: tuple[int, int, int], earlier: Demand | None = None, *, home: NDArray[np.int64] | None = None
    ) -> None:
        self.shape = shape
        self._home = home
        self.start: Micros = 0
        self._tokens = np.zeros((0, *shape))
        self._open_until: Micros = 0  # of the demand events taken in
        self._recent_tokens = np.zeros(shape)  # of the bin that is being filled
        self._latest: list[tuple[Micros, Floats]] = []  # the newest events, a bin's length of them
        self._work = np.zeros(shape)  # engine time and tokens seen so far, older hours fading
        self._work_tokens = np.zeros(shape)
        self._work_requests = np.zeros(shape)
        self._made = np.zeros(shape)  # tokens of answers
        self._mixes = np.zeros((shape[1], MIX_WIDTH))  # likewise, faster
        self._answers = np.zeros((shape[1], shape[2], ANSWER_WIDTH))  # as fast
        self.minutes = Unevenness(shape, earlier)
        self._earlier_mean = np.full(shape[1], 1000.0)  # prompt tokens per request: a guess until something is seen
        if earlier is not None:
            bins = len(earlier.prompt_tokens)
            if earlier.prompt_tokens.shape[1:] != shape or BIN % earlier.bin or earlier.start + bins * earlier.bin != 0:
                raise PlanError(
                    f"arrival history of shape {earlier.prompt_tokens.shape} from {earlier.start} us in bins of {earlier.bin} us"
                    f" does not fit {shape} (regions, models, tiers): it must end at 0, in bins that divide {BIN} us"
                )
            factor = BIN // earlier.bin
            skip = bins % factor
            self._tokens = self._at_home(earlier.prompt_tokens[skip:].reshape(-1, factor, *shape).sum(axis=1))
            self.start = earlier.start + skip * earlier.bin
            requests = earlier.requests.sum(axis=(0, 1, 3))
            self._earlier_mean = np.where(
                requests > 0, earlier.prompt_tokens.sum(axis=(0, 1, 3)) / np.maximum(requests, 1), 1000.0
            )

    def add(self, seen: DemandSeen) -> None:
        """Take in one bin of demand; bins must come in order."""
        tokens = self._at_home(np.array(seen.prompt_tokens, float).reshape(self.shape))
        self._recent_tokens += tokens
        self._latest.append((seen.length, tokens))
        while sum(length for length, _ in self._latest[1:]) >= BIN:
            del self._latest[0]
        fade = 0.5 ** (seen.length / (6 * HOUR))
        self._work = self._work * fade + self._at_home(np.array(seen.work).reshape(self.shape))
        self._work_tokens = self._work_tokens * fade + tokens
        self._work_requests = self._work_requests * fade + self._at_home(np.array(seen.requests, float).reshape(self.shape))
        self._made = self._made * fade + np.array(seen.output_tokens, float).reshape(self.shape)
        self.minutes.see(seen.requests, seen.length)
        if seen.mixes:
            self._mixes = self._mixes * 0.5 ** (seen.length / _MIX_FADE) + np.array(seen.mixes)
        if seen.answers:
            self._answers = self._answers * 0.5 ** (seen.length / _MIX_FADE) + np.array(seen.answers).reshape(self._answers.shape)
        self._open_until = seen.start + seen.length
        if self._open_until % BIN == 0:
            self._tokens = np.concatenate((self._tokens, self._recent_tokens[None]))
            self._recent_tokens = np.zeros(self.shape)

    def _at_home(self, sums: Floats) -> Floats:
        """Sums of [..., regions, models, tiers], each in the region that it is counted in."""
        if self._home is None:
            return sums
        moves = (self._home[:, None] == np.arange(self.shape[0])[:, None, None]).astype(float)  # from, to, models, tiers
        return np.asarray(np.einsum("...gmk,ghmk->...hmk", sums, moves))

    @property
    def end(self) -> Micros:
        """The instant the last whole bin ends."""
        return self.start + len(self._tokens) * BIN

    def tokens(self) -> Floats:
        """float64[bins, regions, models, tiers]: prompt tokens per whole bin."""
        return self._tokens

    def rate(self, span: Micros) -> Floats:
        """float64[regions, models, tiers]: mean tokens/s over the last whole bins that cover `span`."""
        bins = max(1, span // BIN)
        recent = self._tokens[-bins:]
        return recent.mean(axis=0) / (BIN / 1e6) if len(recent) else np.zeros(self.shape)

    def now(self, span: Micros) -> Floats:
        """float64[regions, models, tiers]: mean tokens/s over the newest events that cover `span`, a bin at most."""
        covered, tokens = 0, np.zeros(self.shape)
        for length, amount in reversed(self._latest):
            if covered >= span:
                break
            covered += length
            tokens += amount
        return tokens / (max(covered, 1) / 1e6)

    def seen(self, span: Micros) -> Floats:
        """float64[regions, models, tiers]: tokens over the last whole bins that cover `span`, none from before 0."""
        bins = min(max(1, span // BIN), max(self.end // BIN, 0))
        return self._tokens[len(self._tokens) - bins :].sum(axis=0)

    def batch_prompt_mean(self, tiers: list[int]) -> Floats:
        """float64[models]: mean prompt tokens of requests of these tiers, of what was seen; that of all where nothing was."""
        tokens, requests = self._work_tokens[..., tiers].sum(axis=(0, 2)), self._work_requests[..., tiers].sum(axis=(0, 2))
        return np.where(requests > 0, tokens / np.maximum(requests, 1.0), self.prompt_mean())

    def work_per_token(self, prior: Floats) -> Floats:
        """float64[models, tiers]: engine time per prompt token (us), of what was seen; `prior` (same shape) where nothing was."""
        work, tokens = self._work.sum(axis=0), self._work_tokens.sum(axis=0)
        return np.where(tokens > 0, work / np.maximum(tokens, 1.0), prior)

    def lengths(self, prior: float) -> tuple[Floats, Floats, Floats]:
        """float64[models, tiers] thrice: requests seen so far, older ones fading; mean prompts and answers of them.

        Answers are of `prior` tokens where none was finished; prompts as all of the model where there was none.
        """
        requests, tokens, made = (sums.sum(axis=0) for sums in (self._work_requests, self._work_tokens, self._made))
        count = np.maximum(requests, 1e-9)
        prompt = np.where((requests > 0) & (tokens > 0), tokens / count, self.prompt_mean()[:, None])
        return requests, prompt, np.where((requests > 0) & (made > 0), made / count, prior)

    def work_per_request(self, prior: Floats) -> Floats:
        """float64[models]: mean engine time of a request (us), of what was seen; `prior` where nothing was."""
        work, requests = self._work.sum(axis=(0, 2)), self._work_requests.sum(axis=(0, 2))
        return np.where(requests > 0, work / np.maximum(requests, 1.0), prior)

    def mix(self, model: int, step_us: float) -> RequestMix | None:
        """What waits depend on, of a model's interactive requests of late; None where none were seen."""
        return mix_of(self._mixes[model], step_us)

    def answers(self, model: int) -> Floats:
        """float64[tiers, ANSWER_WIDTH]: answers of a model of late, by length; none where no tier promises a pace."""
        found: Floats = self._answers[model]
        return found

    def prompt_mean(self) -> Floats:
        """float64[models]: mean prompt tokens of a request: of what was seen, else of what is known from before."""
        tokens, requests = self._work_tokens.sum(axis=(0, 2)), self._work_requests.sum(axis=(0, 2))
        return np.where(requests > 0, tokens / np.maximum(requests, 1.0), self._earlier_mean)
