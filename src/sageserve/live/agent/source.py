"""Where an agent fetches its plans: a file in a folder, or a file of a server, asked for anew only when it has changed.

Whatever is there, the answer is bytes or one sentence; how many bytes has a bound, a redirect is not followed, and a token is
read from its file for each request. Believes nothing: `verdict.py` does. Read next: `process.py`.
"""

import asyncio
import os
import ssl
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sageserve.base.errors import ConfigError, in_words
from sageserve.live.agent.sealed import MOST

if TYPE_CHECKING:
    import httpx

PATIENCE_S: Final = 10.0
PLAN: Final = ".plan"


class NotFetched(Exception):
    """Why there is nothing, in one sentence."""


class PlanSource(ABC):
    """Where the plans of one cluster come from."""

    @abstractmethod
    async def fetch(self) -> bytes:
        """The newest file.

        Raises:
            NotFetched: there is none, or it cannot be had.
        """


class FolderSource(PlanSource):
    """A folder that somebody else fills: a mounted volume, a checkout, what a sync of a bucket leaves.

    Args:
        folder: its path.
        cluster: whose plans.
        ending: of the file's name.
    """

    def __init__(self, folder: Path, cluster: str, ending: str = PLAN) -> None:
        self._path = folder / plan_name(cluster, ending)

    async def fetch(self) -> bytes:
        """The file as it is now; a volume that does not answer holds up nothing else."""
        try:
            return await asyncio.to_thread(read_file, self._path)
        except OSError as error:
            raise NotFetched(f"{self._path} cannot be read: {error.strerror or error}") from None


class ServerSource(PlanSource):
    """A server.

    Args:
        url: of the folder, as the server has it.
        cluster: whose plans.
        client: without redirects.
        bearer: file with a token; none: no token.
        ending: of the file's name.
    """

    def __init__(
        self, url: str, cluster: str, client: "httpx.AsyncClient", bearer: Path | None = None, ending: str = PLAN
    ) -> None:
        self._url = f"{url.rstrip('/')}/{quote(plan_name(cluster, ending))}"
        self._client, self._bearer = client, bearer
        self._etag, self._kept = "", b""

    async def fetch(self) -> bytes:
        """The file, or the one from before where the server says that it is still that."""
        import httpx

        headers = {"if-none-match": self._etag} if self._etag else {}
        if self._bearer is not None:
            headers["authorization"] = f"Bearer {read_token(self._bearer)}"
        try:
            async with self._client.stream("GET", self._url, headers=headers) as answer:
                if answer.status_code == 304 and self._etag:
                    return self._kept
                if answer.status_code != 200:
                    meaning = _meaning(answer.status_code, plan=self._url.endswith(PLAN))
                    raise NotFetched(f"{self._url} answers HTTP {answer.status_code}{meaning}")
                found = bytearray()
                async for part in answer.aiter_bytes():
                    found += part
                    if len(found) > MOST:
                        raise NotFetched(f"{self._url} answers with more than {MOST:,} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise NotFetched(f"{self._url} cannot be fetched: {in_words(error)}") from None
        self._etag, self._kept = answer.headers.get("etag", ""), bytes(found)
        return self._kept


def read_token(path: Path) -> str:
    """A token, from its file.

    Raises:
        NotFetched: it cannot be read, or is none.
    """
    try:
        token = read_file(path).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise NotFetched(f"the token {path} cannot be read: {in_words(error)}") from None
    if not token.isascii() or not token.isprintable():
        raise NotFetched(f"the token {path} is none: it has more than one line, or signs that no header may have")
    return token


def read_file(path: Path) -> bytes:
    """What a file of a folder that others fill holds, and one byte more than it may; only files are read: a pipe would never end.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"{path} is no file")
        return file.read(MOST + 1)


def plan_name(cluster: str, ending: str = PLAN) -> str:
    """The file of a cluster's plan, or another of the cluster's by its ending.

    Raises:
        ConfigError: the cluster has a name that no file may have.
    """
    if "/" in cluster or cluster.startswith(".") or not cluster.isprintable():
        raise ConfigError(f"cluster {cluster!r}: no file can be called so", hint="use letters, digits, - and _ in live.clusters")
    return f"{cluster}{ending}"


def server_client(ca_file: Path | None, transport: "httpx.AsyncBaseTransport | None" = None) -> "httpx.AsyncClient":
    """A client that follows no redirect.

    Raises:
        ConfigError: the certificates to trust cannot be read.
    """
    import httpx

    try:
        trusted = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"--ca-file {ca_file}: {in_words(error)}", hint="a PEM file of certificates to trust") from None
    return httpx.AsyncClient(verify=trusted, timeout=PATIENCE_S, follow_redirects=False, transport=transport)


def _meaning(status: int, *, plan: bool) -> str:
    if status == 404:
        return ": no plan of this cluster is there" if plan else ": no report of this cluster is there"
    if status in {401, 403}:
        return ": it wants a token, or another one (--bearer-file)"
    return ": redirects are not followed" if 300 <= status < 400 else ""
