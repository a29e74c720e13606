"""The HTTP server of a control process: its pages, and the files and batches of clients, for whoever knows the fleet's secret.

Knows no page. Read next: `process.py`, which runs it; `door.py`, which lets in.
"""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from sageserve.live.control.door import IN_JSON, FleetOnly

Pages: TypeAlias = Callable[[list[BaseRoute], str, str, int], Callable[[], Coroutine[None, None, None]]]
"""Routes, secret, host and port to what serves them until it is cancelled."""


class PageServer(uvicorn.Server):
    """Leaves signals to whoever runs the process: one of them must not end the pages before the rest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def served(routes: list[BaseRoute], secret: str, host: str, port: int) -> Callable[[], Coroutine[None, None, None]]:
    """What serves these routes by HTTP."""
    pages = FleetOnly(Starlette(routes=routes, exception_handlers=IN_JSON), secret)
    return PageServer(uvicorn.Config(pages, host=host, port=port, log_level="warning", lifespan="off")).serve
