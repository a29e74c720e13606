"""How engines that others run are spoken to: the TLS of those at https addresses, and the key that they ask for.

An https address is spoken to under TLS 1.2 or newer with the engine's certificate checked, or not at all. Files that change are
read again; what cannot be used is said in the log, and what was there before stays. A key is in memory and in the line that is
sent, nowhere else. Knows no connection. Read next: `gateway/upstream.py`, `control/engine_clients.py`.
"""

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sageserve.base.config import EngineAccess, LiveSettings
from sageserve.base.errors import ConfigError
from sageserve.live.key_files import KeyFiles, prepare

_LOG: Final = logging.getLogger(__name__)
_KEY_MAX: Final = 8192  # bytes: more than any server takes in a header line


class OpenedAccess:
    """One entry of live.access, with what its files hold.

    Args:
        where: its name in the settings.
        settings: which files there are.
        environment: variables that may hold a key.

    Raises:
        ConfigError: a file cannot be used, or a variable is not set.
    """

    def __init__(self, where: str, settings: EngineAccess, environment: Mapping[str, str]) -> None:
        self._where = where
        self._settings = settings
        self._environment = environment
        self._files = KeyFiles((settings.ca_file, settings.certificate, settings.key, settings.bearer_file))
        self.tls, self.key = self._read()

    def look(self) -> None:
        """Use the files that are there now, if they are others; for connections and requests that begin afterwards."""
        if not self._files.are_others():
            return
        try:
            self.tls, self.key = self._read()
        except ConfigError as error:
            _LOG.error("%s; what was there before is used on", error.message)
        else:
            _LOG.info("%s: requests that begin now use the new files", self._where)

    def _read(self) -> tuple[ssl.SSLContext, str]:
        one = self._settings
        try:
            return prepare(ssl.create_default_context(cafile=one.ca_file), one.certificate, one.key), self._key()
        except OSError as error:
            raise ConfigError(
                f"{self._where}: {self._files.faulty(error)}",
                hint="PEM files of certificates, a key without a password, a file with an API key in one line",
            ) from None

    def _key(self) -> str:
        one = self._settings
        if one.bearer_file is not None:
            found, place = Path(one.bearer_file).read_text("utf-8", "replace").strip(), one.bearer_file
        elif one.bearer_env is not None:
            found, place = self._environment.get(one.bearer_env, ""), f"the variable {one.bearer_env}"
        else:
            return ""
        if not 0 < len(found) <= _KEY_MAX or not found.isascii() or not found.isprintable() or " " in found:
            raise ConfigError(f"{self._where}: there is no API key in {place}", hint="one line of letters, digits and signs")
        return found


class EngineDoors:
    """How each engine of a fleet is spoken to; `keyed`: some engine asks for a key.

    Args:
        live: its settings.
        environment: variables that may hold keys; see `variables_of`.

    Raises:
        ConfigError: a file cannot be used, or a variable is not set.
    """

    def __init__(self, live: LiveSettings, environment: Mapping[str, str]) -> None:
        self._opened = {
            name: OpenedAccess(f"live.access.{name}", one, environment) for name, one in live.access.items()
        }  # those that no instance names are tried, too: a fault in them is found now
        self.keyed = any(one.key for one in self._opened.values())  # which no change of a file changes
        services = {one.access for one in live.services} - {None}  # one at most, see the settings
        self._of_services = None if not services else self._opened[str(next(iter(services)))]
        self._of = {one.url: self._opened[one.access] for one in live.instances if one.access is not None}
        self._usual: OpenedAccess | None = None

    def at(self, url: str) -> OpenedAccess | None:
        """How to speak to what is at an address; None: in plain HTTP, without a key."""
        found = self._of.get(url, self._of_services)
        if found is None and url.startswith("https://"):
            if self._usual is None:
                self._usual = OpenedAccess("live.access", EngineAccess(), {})
            found = self._usual
        return found

    def look(self) -> None:
        """Use files that have changed."""
        for one in self._opened.values():
            one.look()


def variables_of(live: LiveSettings) -> tuple[str, ...]:
    """Names of variables that hold keys of engines."""
    return tuple(dict.fromkeys(one.bearer_env for one in live.access.values() if one.bearer_env is not None))
