"""Where an agent puts what it says of itself: a file in a folder, or a file of a server, by PUT, as buckets and WebDAV take it.

What comes back is never believed or read: a status, and one sentence when it is not good. Read next: `report.py`, `source.py`.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote

from sageserve.base.errors import in_words
from sageserve.base.units import SECOND, Micros
from sageserve.live.agent.plan_record import encoded
from sageserve.live.agent.report import ENDING, AgentReport, write_report
from sageserve.live.agent.source import NotFetched, read_token

if TYPE_CHECKING:
    import httpx


class NotReported(Exception):
    """Why a report is not there, in one sentence."""


class ReportSink(ABC):
    """Where reports of one cluster go."""

    every: ClassVar[Micros] = 0
    """Between two of them; 0: with every round."""

    @abstractmethod
    async def put(self, report: AgentReport) -> None:
        """Put it in the place of the one before.

        Raises:
            NotReported: it is not there.
        """


class FolderSink(ReportSink):
    """A folder that somebody else reads.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, report: AgentReport) -> None:
        """All at once: whoever reads has the one before or this."""
        try:
            write_report(self._folder, report)
        except OSError as error:
            raise NotReported(f"the report cannot be written to {self._folder}: {error.strerror}") from None


class ServerSink(ReportSink):
    """A server that takes files by PUT.

    Args:
        url: of the folder, as the server has it.
        client: without redirects.
        bearer: file with a token; none: no token.
    """

    every: ClassVar[Micros] = 30 * SECOND

    def __init__(self, url: str, client: "httpx.AsyncClient", bearer: Path | None = None) -> None:
        self._url, self._client, self._bearer = url.rstrip("/"), client, bearer

    async def put(self, report: AgentReport) -> None:
        """One request; a token is read from its file for each."""
        import httpx

        url = f"{self._url}/{quote(report.cluster)}{ENDING}"
        headers = {"content-type": "application/json"}
        try:
            if self._bearer is not None:
                headers["authorization"] = f"Bearer {read_token(self._bearer)}"
            async with self._client.stream("PUT", url, headers=headers, content=encoded(report)) as answer:
                if not answer.is_success:
                    raise NotReported(
                        f"the report is not taken: {url} answers HTTP {answer.status_code}{_meaning(answer.status_code)}"
                    )
        except NotFetched as error:
            raise NotReported(f"the report is not sent: {error}") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise NotReported(f"the report is not sent: {url}: {in_words(error)}") from None


def _meaning(status: int) -> str:
    if status in {401, 403}:
        return ": it wants a token, or another one (--bearer-file)"
    if status in {404, 405, 501}:
        return ": does it take files by PUT?"
    return ": redirects are not followed" if 300 <= status < 400 else ""
