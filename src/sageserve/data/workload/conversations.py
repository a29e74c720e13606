"""Conversations of generated traffic: turns that follow each other after a pause, each prompt the conversation so far and more.

Starts are drawn as requests are; a start of an interactive stream becomes a conversation. It ends with its last turn, with the
window, or when nothing more fits into the model's context. Turns are placed as early as they can be: at the start plus the
pauses, as if answers took no time; a closed loop moves them behind their answers. Read next: `generate.py`, `base/sessions.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sageserve.base.config import Scenario
from sageserve.base.records import UNSET, Bools, Floats, Ints
from sageserve.base.rng import stream
from sageserve.base.units import SECOND
from sageserve.data.workload.rates import Streams, length_table, lengths_of

_MILLI: Final = SECOND // 1000  # pauses are drawn in milliseconds: a table of microseconds would end at half an hour
_WHERE: Final = "workload.generate.conversations"

Starts = Callable[[int], tuple[Ints, NDArray[np.int32]]]
"""Draws that many starts: int64 sorted instants, and the stream of each."""


@dataclass(frozen=True, slots=True)
class Conversations:
    """Requests; columns of n rows.

    Args:
        arrival: int64[n], as early as can be.
        stream: int32[n], the traffic each belongs to.
        prompt: int64[n], tokens: the conversation so far and what this turn adds.
        output: int32[n], tokens.
        session: int32[n], number of the conversation from 0.
        turn: int32[n], from 1.
        delay: int64[n], microseconds after the answer before; UNSET for first turns.
    """

    arrival: Ints
    stream: NDArray[np.int32]
    prompt: Ints
    output: NDArray[np.int32]
    session: NDArray[np.int32]
    turn: NDArray[np.int32]
    delay: Ints

    def take(self, rows: Ints | Bools) -> "Conversations":
        """These rows."""
        return Conversations(
            self.arrival[rows],
            self.stream[rows],
            self.prompt[rows],
            self.output[rows],
            self.session[rows],
            self.turn[rows],
            self.delay[rows],
        )


def draw(scenario: Scenario, streams: Streams, tables: tuple[Floats, Floats], starts: Starts) -> Conversations:
    """Exactly `workload.generate.requests` requests of conversations within the window, in order of time.

    More are drawn than are needed, and whole conversations are left out at random; the last one chosen may lose its end.

    Args:
        scenario: settings and seed.
        streams: of the same scenario.
        tables: lengths of prompts and outputs by shape.
        starts: draws when conversations begin.

    Raises:
        ConfigError: bad points.
    """
    wanted = scenario.workload.generate.requests
    count = max(1, round(wanted / mean_turns(scenario)))
    while True:
        drawn = _whole(scenario, streams, tables, starts(count))
        if len(drawn.arrival) >= wanted:
            break
        count = min(wanted, count * wanted // len(drawn.arrival) + count // 20 + 1)  # every start is at least one request
    sizes = np.bincount(drawn.session)
    chosen = np.argsort(stream(scenario.seed, "window/conversations").random(len(sizes)), kind="stable")
    room = np.empty(len(sizes), dtype=np.int64)
    room[chosen] = wanted - (np.cumsum(sizes[chosen]) - sizes[chosen])
    some = drawn.take(drawn.turn <= room[drawn.session])
    return some.take(np.argsort(some.arrival, kind="stable"))


def mean_turns(scenario: Scenario) -> float:
    """Turns of a conversation, before the window and the context end some."""
    return float(np.rint(_middles(_turns(scenario))).mean())


def growth(scenario: Scenario, tables: tuple[Floats, Floats]) -> Floats:
    """float64[shapes]: how many times as long as a first prompt the mean prompt is, before the window and the context end some.

    Turn k of a conversation brings k - 1 answers and as many messages with it, so that T turns have T (T - 1) / 2 of each.
    """
    turns = np.rint(_middles(_turns(scenario)))
    added = _middles(length_table(scenario.workload.generate.conversations.added, f"{_WHERE}.added")).mean()
    prompt, output = (_middles(table).mean(axis=-1) for table in tables)
    longer: Floats = 1 + (added + output) * (turns * (turns - 1)).mean() / (2 * turns.mean() * prompt)
    return longer


def _middles(table: Floats) -> Floats:
    """Lengths in the middles of the steps of a table."""
    middles: Floats = (table[..., 1:] + table[..., :-1]) / 2
    return middles


def _turns(scenario: Scenario) -> Floats:
    return length_table(scenario.workload.generate.conversations.turns, f"{_WHERE}.turns", "turns")


def _whole(
    scenario: Scenario, streams: Streams, tables: tuple[Floats, Floats], starts: tuple[Ints, NDArray[np.int32]]
) -> Conversations:
    """All turns of these conversations that lie in the window and fit into the context, conversation by conversation."""
    settings = scenario.workload.generate
    arrival, kinds = starts
    several = streams.interactive[kinds]
    turns = np.ones(len(arrival), dtype=np.int32)
    turns[several] = _plain(int(several.sum()), _turns(scenario), scenario.seed, "turns")
    session = np.repeat(np.arange(len(arrival), dtype=np.int32), turns)
    first = np.cumsum(turns) - turns
    turn = (np.arange(len(session)) - first[session] + 1).astype(np.int32)
    later, of = turn > 1, kinds[session]
    table = length_table(settings.conversations.added, f"{_WHERE}.added")
    adds = np.empty(len(session), dtype=np.int64)
    adds[~later] = lengths_of(kinds, tables[0][streams.shape], stream(scenario.seed, "window/prompt"))
    adds[later] = _plain(int(later.sum()), table, scenario.seed, "added")
    output = lengths_of(of, tables[1][streams.shape], stream(scenario.seed, "window/output"))
    pause = np.zeros(len(session), dtype=np.int64)
    think = tuple((quantile, time / _MILLI) for quantile, time in settings.conversations.think)
    pause[later] = _plain(int(later.sum()), length_table(think, f"{_WHERE}.think", "time"), scenario.seed, "think")
    pause *= _MILLI
    every = Conversations(
        arrival=arrival[session] + _running(pause, first, session),
        stream=of,
        prompt=_running(adds + output, first, session) - output,
        output=output,
        session=session,
        turn=turn,
        delay=np.where(later, pause, UNSET),
    )
    context = np.array([model.context for model in scenario.models.values()], dtype=np.int64)[streams.model[of]]
    fits = every.prompt + every.output <= context
    return every.take((turn == 1) | ((every.arrival < settings.length) & fits))


def _plain(count: int, table: Floats, seed: int, name: str) -> NDArray[np.int32]:
    """That many lengths of one table."""
    return lengths_of(np.zeros(count, dtype=np.int32), table[None, :], stream(seed, f"window/{name}"))


def _running(values: Ints, first: Ints, session: NDArray[np.int32]) -> Ints:
    """Sums from the beginning of each conversation up to each of its turns."""
    sums = np.cumsum(values)
    before = (sums - values)[first]
    running: Ints = sums - before[session]
    return running


def told_apart(found: Conversations) -> Conversations:
    """The requests with their conversations numbered in order of time; those of a single turn stand alone (UNSET)."""
    several = np.bincount(found.session)[found.session] > 1
    _, firsts, codes = np.unique(found.session[several], return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), dtype=np.int32)
    rank[np.argsort(firsts, kind="stable")] = np.arange(len(firsts), dtype=np.int32)
    session = np.full(len(several), UNSET, dtype=np.int32)
    session[several] = rank[codes]
    return replace(found, session=session, turn=np.where(several, found.turn, UNSET).astype(np.int32))
