"""How engines of each revision are run: what a rollout brings, beside what the settings have.

Shared by control, which begins rollouts, and the actuator, which starts their instances. Decides nothing.
Read next: `live/control/live_rollouts.py`, `local.py`.
"""

from dataclasses import replace

from sageserve.base.config import RolloutSettings
from sageserve.live.actuators.base import Post


class EngineRevisions:
    """Of one fleet, from 1 on; 0 is what its settings have."""

    def __init__(self) -> None:
        self._known: dict[int, RolloutSettings] = {}
        self._over: set[int] = set()

    def add(self, revision: int, one: RolloutSettings) -> None:
        """One more may be started."""
        self._known[revision] = one

    def end(self, revision: int, *, over: bool) -> None:
        """Whether nothing is started in it any more."""
        (self._over.add if over else self._over.discard)(revision)

    def is_over(self, revision: int) -> bool:
        """Whether nothing is started in it, so that its failures are past."""
        return revision in self._over

    def post(self, post: Post, revision: int) -> Post:
        """The same post in a revision; one that is not known any more is run as the settings have it."""
        one = self._known.get(revision)
        if one is None or one.model != post.model:
            return replace(post, revision=revision)
        return replace(post, revision=revision, command=one.engine, engine_time=one.engine_time)
