"""What requests are sent to: instances, what this gateway has at each and at each endpoint, and a request at one of them.

Plain counts; `routing_state.py` keeps them and decides by them.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from sageserve.base.units import Micros
from sageserve.core.engine import timing
from sageserve.live.gateway.prompt_memory import PromptMemory
from sageserve.live.wire import InstanceRow

TOGETHER: Final = 1000  # us: answers of one engine that end within it ended with one iteration, which takes longer


class Target:
    """An instance that requests may be sent to, and what this gateway has there."""

    __slots__ = (
        "at",
        "authority",
        "endpoint",
        "failures",
        "freed_at",
        "heard",
        "host",
        "in_flight",
        "model",
        "open",
        "pace",
        "port",
        "prefix",
        "profile",
        "prompts",
        "revision",
        "row",
        "secured",
        "served",
        "there",
        "told_at",
        "trial",
        "trouble",
        "unfinished",
        "unfinished_there",
        "url",
        "weight",
        "well",
    )

    def __init__(self, one: InstanceRow, profile: timing.EngineRow, model: int) -> None:
        parts = urlsplit(one.url)
        self.at = -1  # where it is among those of its endpoint that may be chosen
        self.row = one.row
        self.endpoint = one.endpoint
        self.url = one.url
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.secured = parts.scheme == "https"
        self.prefix = parts.path.rstrip("/").encode()
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.profile = profile
        self.model = model
        self.weight = int(profile["weight"])
        self.prompts = PromptMemory(int(profile["kv_tokens"]))
        self.in_flight = 0
        self.unfinished = 0  # prompt tokens sent whose first token has not come
        self.failures = 0
        self.freed_at: Micros = -TOGETHER - 1  # when an answer last ended here while it was open
        self.trouble: Micros = 0  # left out until then
        self.heard: Micros = 0  # when something last came from it, as far as was looked; 0: nothing did yet
        self.told_at: Micros = 0  # when control was last asked to look whether it hangs
        self.pace = 1.0  # first tokens as they come, in multiples of what the profile says
        self.update(one)

    def update(self, one: InstanceRow) -> None:
        """Take over what control says of it."""
        self.served = one.served_model
        self.open = one.open
        self.well = one.well
        self.revision = one.revision
        self.trial = one.trial
        self.there = one.elsewhere  # outstanding tokens times weight that other gateways sent
        self.unfinished_there = one.unfinished  # of those, tokens of prompts that are not done


class CanaryTurns:
    """An endpoint some of whose targets are canaries: they get their share of its requests, and never more.

    Args:
        targets: that may be chosen.
    """

    __slots__ = ("_asked", "_new", "_old", "_tried", "chosen", "rows")

    def __init__(self, targets: Sequence[Target]) -> None:
        self.rows = [(target.row, target.trial) for target in targets]
        self._new = [at for at, target in enumerate(targets) if target.trial]
        self._old = [at for at, target in enumerate(targets) if not target.trial]
        self._asked = 0
        self._tried = 0
        self.chosen: Target | None = None  # last, for a request that was not tried elsewhere before

    def turn(self) -> list[int]:
        """Where the next request may go: places among the targets."""
        due = (self._tried + 1) * len(self.rows) <= (self._asked + 1) * len(self._new)
        return self._new if due else self._old

    def note(self, target: Target) -> None:
        """A request was sent; one that failed elsewhere is nobody's turn: a canary that fails is not asked the more for it."""
        if target is self.chosen:
            self.chosen = None
            self._asked += 1
            self._tried += target.trial


def trial_of(targets: Sequence[Target], before: CanaryTurns | None) -> CanaryTurns | None:
    """The trial among these targets, which goes on while they are the same; None where all are canaries, or none is."""
    if not any(target.trial for target in targets) or all(target.trial for target in targets):
        return None
    if before is not None and before.rows == [(target.row, target.trial) for target in targets]:
        return before
    return CanaryTurns(targets)


class EndpointLoad:
    """What this gateway counts at an endpoint, and the targets that may be chosen there."""

    __slots__ = (
        "all",
        "backlog",
        "freed",
        "held",
        "in_flight",
        "offered",
        "outstanding",
        "placed",
        "rate",
        "seen_offered",
        "sequences",
        "targets",
        "trial",
    )

    def __init__(self) -> None:
        self.all: list[Target] = []
        self.sequences = 0  # that the open targets can run together
        self.targets: list[Target] = []  # of all, those that are open and out of trouble
        self.outstanding: list[int] = []  # outstanding, target by target
        self.offered = 0.0  # microseconds of engine time, cumulative
        self.seen_offered = 0.0  # of that, at the last own look
        self.rate = 0.0
        self.backlog = 0.0  # microseconds of prefill not finished
        self.placed = 0
        self.freed = 0  # iterations of open targets that finished something, as far as can be told from here
        self.in_flight = 0
        self.held = 0.0  # tokens of requests in flight: prompt and half an answer
        self.trial: CanaryTurns | None = None  # some targets are canaries, and some are not


class Placement:
    """One request at one target."""

    __slots__ = ("begun", "held", "length", "model", "prefill", "prompt", "target", "tier", "wait", "work")

    def __init__(self, target: Target, prompt: int, model: int, tier: int) -> None:
        self.target = target
        self.prompt = prompt
        self.length = prompt  # with what the target has of it
        self.model = model
        self.tier = tier
        self.begun = False
        self.prefill = 0.0
        self.work = 0.0
        self.held = 0.0
        self.wait = 0.0  # predicted, microseconds until its prefill begins
