"""The search for one model's counts: what to play next, from what was played so far.

First a fleet that is far too large says what can be kept at all, and what is beyond that is not asked for. Then all pools grow
together, in proportion to the guess, until two windows hold, and on until all do. Then one instance less is tried in every pool,
on the two tightest windows first, and the one that leaves the most room is taken if all windows hold, until none can go. The same
windows judge all candidates, so that differences are of the fleet and not of chance. Plays nothing itself: it is a generator that
asks. Read next: `run.py`, which plays.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Final, TypeAlias

from sageserve.base.errors import Infeasible
from sageserve.sim.sizing.pools import SizedPool
from sageserve.sim.sizing.safety import KeptShare, Proof, each_of, may_miss, prove

Counts: TypeAlias = tuple[int, ...]
"""Instances by pool, in order of a model's pools."""
Ask: TypeAlias = tuple[Counts, int]
"""Counts, and the number of the window to play them in."""

_LARGE: Final = 3  # times the guess, and as many more for each pool: where more would change nothing
_FIRST: Final = (0, 1)  # windows that candidates are tried on before any is known to be tight
_CLOSE: Final = 0.01  # of requests: a promise that a large fleet keeps by less may be out of reach in another window
_GAIN: Final = 0.005  # of requests: twice the instances that keep less more than that are more than enough
_MOST: Final = 4096  # instances of one model


@dataclass(frozen=True, slots=True)
class Measured:
    """One model in one window.

    Args:
        kept: by tier that has requests.
        owed: GPU-hours of work left at the end of the window.
        spare: GPU-hours of the window in which engines had nothing to do.
        without: by tier, what was lost where it kept least; left out where nothing was.
    """

    kept: Mapping[str, KeptShare]
    owed: float
    spare: float
    without: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """What a candidate does not keep.

    Args:
        tier: whose promise; empty: the work that arrives is more than the fleet can do.
        window: in which it was missed; -1: in none, but it is not sure enough that it holds in another.
        share: kept there, or the safety.
        without: what was lost; empty: nothing.
    """

    tier: str
    window: int
    share: float
    without: str = ""


@dataclass(frozen=True, slots=True)
class Promises:
    """What is to be kept.

    Args:
        percentiles: by tier.
        windows: how many are played.
        confidence: that all promises of all models hold together.
        parts: promises of all models, which share what may go wrong.
    """

    percentiles: Mapping[str, float]
    windows: int
    confidence: float
    parts: int

    @property
    def each(self) -> float:
        """The confidence that a single promise needs."""
        return each_of(self.confidence, self.parts)

    def broken_in(self, measured: Measured, window: int) -> Broken | None:
        """The promise that is missed by most in a window; None: all are kept."""
        missed = [
            (kept.share - self.percentiles[tier], Broken(tier, window, kept.share, measured.without.get(tier, "")))
            for tier, kept in measured.kept.items()
            if kept.requests - kept.kept > may_miss(kept.requests, self.percentiles[tier])
        ]
        if missed:
            return min(missed, key=lambda one: one[0])[1]
        return Broken("", window, measured.owed) if measured.owed > measured.spare else None

    def proofs(self, windows: Sequence[Measured]) -> dict[str, Proof]:
        """By tier, from two windows or more that have requests of it."""
        found = {}
        for tier, percentile in self.percentiles.items():
            kept = [one.kept[tier] for one in windows if tier in one.kept]
            if len(kept) > 1:
                found[tier] = prove(kept, percentile, self.each)
        return found

    def asked(self, tier: str, windows: Sequence[Measured]) -> bool:
        """Whether the safety of a tier is asked for.

        Not where windows have so few requests that none may be late, or that a fleet that is late for none is not shown safe.
        """
        counts = [one.kept[tier].requests for one in windows if tier in one.kept]
        if len(counts) < 2 or not may_miss(sum(counts) / len(counts), self.percentiles[tier]):
            return False
        return prove([KeptShare(count, count) for count in counts], self.percentiles[tier], self.each).safety >= self.each

    def unsure(self, windows: Sequence[Measured]) -> Broken | None:
        """The promise that is least sure, of those whose safety is asked for, if it is not sure enough."""
        told = [
            Broken(tier, -1, proof.safety)
            for tier, proof in self.proofs(windows).items()
            if proof.safety < self.each and self.asked(tier, windows)
        ]
        return min(told, key=lambda one: one.share, default=None)

    def room(self, measured: Measured) -> float:
        """How far the tightest promise is from being missed, as a share of requests."""
        return min((kept.share - self.percentiles[tier] for tier, kept in measured.kept.items()), default=1.0)


def least_of(found: Mapping[str, Measured]) -> Measured:
    """What is kept whatever is lost: of each tier the least, and the work of the fleet that is most behind.

    Args:
        found: by what was lost; empty: nothing.
    """
    kept: dict[str, KeptShare] = {}
    without = {}
    for lost, one in found.items():
        for tier, share in one.kept.items():
            if tier not in kept or share.share < kept[tier].share:
                kept[tier], without[tier] = share, lost
    behind = max(found.values(), key=lambda one: one.owed - one.spare)
    return Measured(kept, behind.owed, behind.spare, {tier: lost for tier, lost in without.items() if lost})


@dataclass(slots=True)
class Search:
    """The counts of one model.

    Args:
        model: its name.
        pools: its pools.
        promises: to keep.
        within: instances of the whole fleet by pool, beside which this model is played; empty: it is played alone.
        losses: by what may be lost, instances that go with it, by pool; promises hold whichever it is, and without.
    """

    model: str
    pools: Sequence[SizedPool]
    promises: Promises
    within: Mapping[str, int] = field(default_factory=dict)
    losses: Mapping[str, Counts] = field(default_factory=dict)
    counts: Counts = ()
    less: dict[str, Broken] = field(default_factory=dict)  # by pool, what one instance less breaks
    looked: bool = False  # what is out of reach is known by all windows
    reach: dict[str, float] = field(default_factory=dict)  # by tier out of reach, the share that idle engines serve in time
    measured: dict[Ask, Measured] = field(default_factory=dict)  # whatever is lost
    played: dict[Ask, Measured] = field(default_factory=dict)  # with what is left

    def run(self) -> Generator[list[Ask], list[Measured], None]:
        """Ask for plays until `counts` and `less` are found.

        Within a whole fleet its counts hold already, and what can go is taken away.

        Raises:
            Infeasible: no number of instances is enough.
        """
        if self.within:
            self.counts = tuple(self.within[pool.name] for pool in self.pools)
            yield from self._take_away()
            return
        large = yield from self._reach(self._times(1.0, large=True))
        k = yield from self._fewest_in_proportion(large)
        if not (yield from self._prove_from(k, sum(large))):
            large = yield from self._reach_in_all(large)
            k = yield from self._fewest_in_proportion(large)
            yield from self._prove_from(k, sum(large))
        yield from self._take_away()

    # --- what is known ---

    def _play(self, asks: Sequence[Ask]) -> Generator[list[Ask], list[Measured], None]:
        new = [ask for ask in dict.fromkeys(asks) if ask not in self.measured]
        if not new:
            return
        left = {(counts, window): self._left(counts) for counts, window in new}
        unplayed = [(some, window) for (_, window), found in left.items() for some in found.values()]
        unplayed = [ask for ask in dict.fromkeys(unplayed) if ask not in self.played]
        if unplayed:
            self.played.update(zip(unplayed, (yield unplayed), strict=True))
        for (counts, window), found in left.items():
            self.measured[counts, window] = least_of({lost: self.played[some, window] for lost, some in found.items()})

    def _left(self, counts: Counts) -> dict[str, Counts]:
        """What is left of a fleet, by what is lost; without a loss all of it."""
        return {"": counts} | {
            lost: tuple(max(count - gone, 0) for count, gone in zip(counts, taken, strict=True))
            for lost, taken in self.losses.items()
        }

    def _judge(self, counts: Counts, windows: Sequence[int]) -> Generator[list[Ask], list[Measured], Broken | None]:
        """What a candidate breaks in some windows, the first of them; None: nothing."""
        yield from self._play([(counts, window) for window in windows])
        for window in windows:
            if (broken := self.promises.broken_in(self.measured[counts, window], window)) is not None:
                return broken
        return None

    def _holds(self, counts: Counts) -> Generator[list[Ask], list[Measured], Broken | None]:
        """What a candidate breaks in all windows, or is not sure of; the tight ones are played first."""
        broken = yield from self._judge(counts, self._tightest())
        if broken is None:
            broken = yield from self._judge(counts, range(self.promises.windows))
        if broken is None:
            broken = self.promises.unsure([self.measured[counts, window] for window in range(self.promises.windows)])
        return broken

    def _tightest(self) -> tuple[int, ...]:
        """The two windows that leave the least room at the counts found so far."""
        known = [w for w in range(self.promises.windows) if (self.counts, w) in self.measured]
        tight = sorted(known, key=lambda w: self.promises.room(self.measured[self.counts, w]))[:2]
        return tuple(tight) if len(tight) == 2 else _FIRST

    # --- the steps ---

    def _times(self, factor: float, *, large: bool = False) -> Counts:
        """The guess times a factor, floors kept; as a whole never nothing."""
        if large:
            return tuple(max(pool.floor, _LARGE * pool.guess + _LARGE) for pool in self.pools)
        found = tuple(max(pool.floor, ceil(factor * pool.guess - 1e-9)) for pool in self.pools)
        return found if any(found) else tuple(int(k == 0) for k in range(len(found)))

    def _reach(self, large: Counts) -> Generator[list[Ask], list[Measured], Counts]:
        """More than enough; a promise that this misses is kept for its percentile of those that idle engines serve in time."""
        broken = yield from self._judge(large, _FIRST)
        if broken is None and min(self.promises.room(self.measured[large, window]) for window in _FIRST) > _CLOSE:
            return large
        return (yield from self._reach_in_all(large))

    def _reach_in_all(self, large: Counts) -> Generator[list[Ask], list[Measured], Counts]:
        """The same by all windows."""
        self.looked = True
        every = range(self.promises.windows)
        while (yield from self._holds(large)) is not None:
            larger = tuple(2 * count for count in large)
            yield from self._play([(counts, window) for counts in (large, larger) for window in every])
            gains = [self._gain(larger, large, window) for window in every]
            if max(gains) < _GAIN:
                break
            if sum(larger) > _MOST:
                if any(self.measured[large, window].owed > self.measured[large, window].spare for window in every):
                    break
                raise self._none(large)
            large = larger
        windows = [self.measured[large, window] for window in every]
        proofs = self.promises.proofs(windows)
        percentiles = dict(self.promises.percentiles)
        for tier, percentile in self.promises.percentiles.items():
            shares = [one.kept[tier].share for one in windows if tier in one.kept]
            sure = tier not in proofs or proofs[tier].safety >= self.promises.each or not self.promises.asked(tier, windows)
            if shares and (min(shares) < percentile or not sure):
                low = proofs[tier].low if tier in proofs else 1.0  # what is safe to say of idle engines
                self.reach[tier] = min(shares) if low > percentile * min(shares) else low
                percentiles[tier] = percentile * self.reach[tier]
        self.promises = replace(self.promises, percentiles=percentiles)
        if any(one.owed > one.spare for one in windows):
            raise Infeasible(
                f"{sum(large)} instances of {self.model} cannot do the work that arrives",
                hint="look at the traffic with `sageserve trace inspect`: a window may be too short for its batch work",
            )
        return large

    def _gain(self, larger: Counts, large: Counts, window: int) -> float:
        """What a larger fleet keeps more in a window, as a share; that it does work which the other leaves is all of it."""
        one, other = self.measured[larger, window], self.measured[large, window]
        if other.owed > other.spare:
            return 1.0
        return self.promises.room(one) - self.promises.room(other)

    def _fewest_in_proportion(self, large: Counts) -> Generator[list[Ask], list[Measured], int]:
        """The least total at which two windows hold, with all pools in proportion to their guesses."""
        low, high = 1, sum(large)
        while low < high:
            middle = (low + high) // 2
            broken = yield from self._judge(self._total(middle), _FIRST)
            if broken is None:
                high = middle
            else:
                low = middle + 1
        return high

    def _total(self, total: int) -> Counts:
        return self._times(total / max(sum(pool.guess for pool in self.pools), 1))

    def _none(self, last: Counts) -> Infeasible:
        return Infeasible(
            f"no fleet was found for {self.model} that holds with {self.promises.confidence:.2%} safety: {sum(last)} instances do"
            " not, and more keep no more",
            hint="ask for less with --safety 90%, or look at the traffic: a burst may be beyond any constant fleet",
        )

    def _prove_from(self, total: int, large: int) -> Generator[list[Ask], list[Measured], bool]:
        """The least total at which all windows hold, pools in proportion: steps that double until it is passed, then halves.

        False: more than the large fleet is wanted, of which two windows are known; the others may ask for what nobody can keep.
        """
        step, low, high, most = 1, total, total, 2 * large  # what this does not keep is not missed for want of instances
        self.counts = self._total(high)
        while (yield from self._holds(self.counts)) is not None:
            if high >= large and not self.looked:
                return False
            if high == most:
                raise self._none(self.counts)
            low, high, step = high + 1, min(high + step, most), 2 * step
            self.counts = self._total(high)
        while low < high:
            middle = (low + high) // 2
            if (yield from self._holds(self._total(middle))) is None:
                high = middle
            else:
                low = middle + 1
        self.counts = self._total(high)
        return True

    def _take_away(self) -> Generator[list[Ask], list[Measured], None]:
        """Take instances away until not one can go; as many more at a time as went before, and half as many where none could."""
        step = 1
        while True:
            self.less = {}
            fewer = self._fewer(step)
            tight = self._tightest()
            yield from self._play([(counts, window) for counts in fewer.values() for window in tight])
            held = []
            for name, counts in fewer.items():
                broken = yield from self._judge(counts, tight)
                if broken is None:
                    held.append((min(self.promises.room(self.measured[counts, window]) for window in tight), name, counts))
                else:
                    self.less[name] = broken
            for _, name, counts in sorted(held, reverse=True):
                broken = yield from self._holds(counts)
                if broken is None:
                    self.counts = counts
                    step *= 2
                    break
                self.less[name] = broken
            else:
                if step == 1:
                    return
                step //= 2

    def _fewer(self, step: int) -> dict[str, Counts]:
        """By pool, the counts with so many instances less of it; fewer where its floor or the last instance of all is nearer."""
        found = {}
        for n, pool in enumerate(self.pools):
            taken = min(step, self.counts[n] - pool.floor, sum(self.counts) - 1)
            if taken > 0:
                found[pool.name] = tuple(count - taken * (k == n) for k, count in enumerate(self.counts))
        return found
