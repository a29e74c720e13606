"""Credentials of a kubeconfig that cannot be had are an answer that did not come, of the same family as a server that is away.

A plug-in may fail once, or not be there, or print what is no credential: whoever asks a cluster catches the HTTP client's errors,
so that is what these become. Read next: `reader.py`.
"""

from collections.abc import AsyncGenerator
from typing import Final

import httpx2
from lightkube.core.exceptions import ConfigError

_MOST: Final = 300  # signs of what a plug-in says


class NoCredentials(httpx2.TransportError):
    """A request was not sent, because what would sign it could not be had."""


class GuardedAuth(httpx2.Auth):
    """What signs requests, with its faults as `NoCredentials`.

    Args:
        inner: lightkube's: a token, its file, a plug-in.
    """

    def __init__(self, inner: httpx2.Auth) -> None:
        self._inner = inner

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """As the one inside has it."""
        flow = self._inner.async_auth_flow(request)
        try:
            signed = await _step(flow, None)
            while signed is not None:
                answer = yield signed
                signed = await _step(flow, answer)
        finally:
            await flow.aclose()


async def _step(flow: AsyncGenerator[httpx2.Request, httpx2.Response], answer: httpx2.Response | None) -> httpx2.Request | None:
    """The next request, or None where there is no other one."""
    try:
        return await (anext(flow) if answer is None else flow.asend(answer))
    except StopAsyncIteration:
        return None
    except (ConfigError, OSError) as error:
        raise NoCredentials(f"no credentials: {_line(error)}") from error
    except (ValueError, LookupError, TypeError) as error:  # it reads status.token of whatever was printed
        raise NoCredentials(f"no credentials: the kubeconfig's plug-in printed no token ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:_MOST] or type(error).__name__
