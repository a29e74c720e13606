"""The certificate that the public port is opened with; the same port goes on with a new one when its files change.

Nobody need tell: the files are looked at every second, and connections that begin afterwards see the new one. What cannot be used
is said in the log, and the one before stays. Knows no socket. Read next: `server.py`.
"""

import ssl

from sageserve.base.config import TlsSettings
from sageserve.base.errors import ConfigError
from sageserve.live.gateway.context import LOG
from sageserve.live.key_files import KeyFiles, prepare


class ServedCertificate:
    """A certificate and its key.

    Args:
        settings: where they are.

    Raises:
        ConfigError: they cannot be read, or do not belong together.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._files = KeyFiles((settings.certificate, settings.key))
        try:
            self.context = self._latest = self._read()
        except OSError as error:
            raise ConfigError(
                f"live.tls: {settings.certificate} and {settings.key} cannot be used: {error}",
                hint="PEM files, the certificate with those between it and its authority, the key without a password",
            ) from None
        self.context.sni_callback = self._choose  # called for every connection, whether it names a host or not

    def look(self) -> None:
        """Use the files that are there now, if they are others."""
        if not self._files.are_others():
            return
        try:
            self._latest = self._read()  # a new one: into the old one a key of another kind is put beside the one before
        except OSError as error:
            LOG.error("the new certificate cannot be used, the one before stays: %s", error)
        else:
            LOG.info("connections that begin now see the new certificate")

    def _choose(self, connection: ssl.SSLObject, _host: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._latest

    def _read(self) -> ssl.SSLContext:
        return prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._settings.certificate, self._settings.key)
