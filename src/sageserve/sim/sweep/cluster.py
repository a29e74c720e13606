"""Cells on a Ray cluster: the one that is found, or one made of this machine for as long as the sweep lasts.

Every node needs the same version of this package. Traces from files are read here and sent; generated ones are drawn where
they are played. A cell whose worker or node dies is given to another. Ray is an extra, imported when it is asked for.
Read next: `processes.py` for the same on one machine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from sageserve.base.errors import ConfigError
from sageserve.data.traces.requests import Requests
from sageserve.sim.sweep.cell import Cell, Failed, Outcome, Player
from sageserve.sim.sweep.room import memory_of

RETRIES: Final = 3  # of a lost worker: nodes of a cluster may be spot VMs
_PATIENCE: Final = 0.2  # seconds between two looks whether somebody wants to stop
_PLAYER: Final = Player()  # of a worker process: it plays several cells, and keeps the requests of the last


class Ray:
    """Runs cells as Ray tasks.

    Args:
        environment: variables that workers are given, such as where compiled code is kept.
        address: of the cluster; None: the one found from RAY_ADDRESS or on this machine, else one made here.

    Raises:
        ConfigError: Ray is not installed.
    """

    def __init__(self, environment: Mapping[str, str], address: str | None = None) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise ConfigError("Ray is not installed here", hint="pip install 'sageserve[ray]', or use --on local") from None
        self._environment = dict(environment)
        self._address = address

    def run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        """The number and outcome of each cell, as they come; fewer when it was interrupted."""
        ours = not self._ray.is_initialized()
        if ours:
            self._begin()
        try:
            yield from self._run(cells, interrupted)
        finally:
            if ours:
                self._ray.shutdown()

    def _begin(self) -> None:
        try:
            self._ray.init(
                address=self._address,
                runtime_env={"env_vars": self._environment},
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except ConnectionError as error:
            raise ConfigError(f"no Ray cluster answers: {error}", hint="start one with `ray start --head`") from None

    def _run(self, cells: Sequence[Cell], interrupted: Callable[[], bool]) -> Iterator[tuple[int, Outcome]]:
        task = self._ray.remote(num_cpus=1, max_retries=RETRIES, retry_exceptions=False)(_play)
        sent: dict[str, Any] = {}
        flying: dict[Any, int] = {}
        for number, cell in enumerate(cells):
            given = None
            if cell.source.options.files:
                traffic = cell.traffic()
                if traffic not in sent:
                    sent[traffic] = self._ray.put(Player().requests(cell))
                given = sent[traffic]
            flying[task.options(memory=memory_of(cell)).remote(cell, given)] = number
        while flying and not interrupted():
            for done in self._ray.wait(list(flying), num_returns=1, timeout=_PATIENCE)[0]:
                yield flying.pop(done), self._outcome(done)
        for left in flying:
            self._ray.cancel(left, force=True)

    def _outcome(self, done: Any) -> Outcome:  # noqa: ANN401 # Ray has types of its own, and need not be installed
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(done)
        except errors.RayTaskError as error:
            return Failed(f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            return Failed(f"its worker was lost {RETRIES + 1} times: {error}", "it may need more memory than a node has")
        return outcome


def _play(cell: Cell, given: Requests | None) -> Outcome:
    return _PLAYER.play(cell, given=given) or Failed("it was interrupted")
