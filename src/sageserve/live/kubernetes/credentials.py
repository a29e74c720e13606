"""Credentials of a kubeconfig that cannot be had are an answer that did not come, of the same family as a server that is away.

A plug-in may fail once, or not be there, or print what is no credential, or never end: whoever asks a cluster catches the HTTP
client's errors, so that is what these become. Plug-ins are asked here and not by lightkube, which knows none of version v1, does
not tell them what it understands, and waits for ever. Read next: `reader.py`.
"""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import httpx2
import msgspec
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import UserExec
from lightkube.core.exceptions import ConfigError

_MOST: Final = 300  # signs of what a plug-in says
_GROUP: Final = "client.authentication.k8s.io"
VERSIONS: Final = tuple(f"{_GROUP}/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
PATIENCE_S: Final = 60.0
"""That a plug-in is waited for: it asks a cloud, and nobody here could answer a question of it."""
_UNAUTHORIZED: Final = 401


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


class PluginAuth(httpx2.Auth):
    """A token that a plug-in prints, kept until the server takes it no more; of many requests one asks for the next.

    Args:
        plugin: of the kubeconfig.
        command: of it, where a path in the kubeconfig is from there.
    """

    def __init__(self, plugin: UserExec, command: str) -> None:
        self._plugin, self._command = plugin, command
        self._bearer = ""
        self._asking = asyncio.Lock()

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """With the token from before, and once more with a new one where that is not taken."""
        if used := self._bearer:
            request.headers["Authorization"] = used
            answer = yield request
            if answer.status_code != _UNAUTHORIZED:
                return
        async with self._asking:
            if self._bearer == used:  # nobody else has asked meanwhile
                self._bearer = f"Bearer {await self._token()}"
        request.headers["Authorization"] = self._bearer
        yield request

    async def _token(self) -> str:
        plugin = self._plugin
        if plugin.apiVersion not in VERSIONS:
            raise ConfigError(f"a plug-in of {plugin.apiVersion} is not known here, those of {', '.join(VERSIONS)} are")
        asked = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
        more = {one.name: one.value for one in plugin.env or ()}
        environment = {**os.environ, **more, "KUBERNETES_EXEC_INFO": msgspec.json.encode(asked).decode()}  # noqa: TID251 # it is the user's program
        printed = await printed_by([self._command, *(plugin.args or ())], environment)
        status = json.loads(printed)["status"]
        if "token" not in status and "clientCertificateData" in status:
            raise ConfigError(f"the plug-in {self._command} gives a certificate, and only tokens are used here")
        token = status["token"]
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ValueError("no header can have it")
        return token


async def printed_by(command: Sequence[str], environment: Mapping[str, str]) -> bytes:
    """What a program prints; one that takes too long is ended, and with it what it started, which has its pipes.

    Raises:
        ConfigError: it failed, or did not end.
        OSError: it cannot be run.
    """
    pipe, none = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(
        *command, env=environment, stdin=none, stdout=pipe, stderr=pipe, start_new_session=True
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            printed, said = await running.communicate()
    except TimeoutError:
        raise ConfigError(f"the plug-in {command[0]} did not end within {PATIENCE_S:g} s") from None
    finally:
        if running.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            await running.wait()
    if running.returncode:
        raise ConfigError(f"the plug-in {command[0]} returned {running.returncode}: {said.decode(errors='replace')}")
    return printed


def signed_by(config: SingleConfig, usual: httpx2.Auth | None) -> httpx2.Auth | None:
    """What signs requests to a cluster: its plug-in, asked here; else what lightkube has.

    Args:
        config: of the cluster.
        usual: lightkube's own.
    """
    user = config.user
    if usual is None or user is None or user.exec is None or user.token is not None or user.token_file is not None:
        return usual if usual is None else GuardedAuth(usual)
    command = user.exec.command
    # absolute: without a folder in it, it would be looked for on the PATH
    return GuardedAuth(PluginAuth(user.exec, str(Path(config.abs_file(command)).absolute()) if os.sep in command else command))


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
