"""Certificates that our ports are opened with, and how long they hold: a port goes on with a new one when its files change.

Nobody need tell: the files are looked at, and connections that begin afterwards see the new one. What cannot be used is said in
the log, and the one before stays. Knows no socket. Read next: `key_files.py`; `gateway/server.py` and `link_port.py`, the users.
"""

import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sageserve.base.config import LinkTlsSettings, TlsSettings
from sageserve.base.errors import ConfigError
from sageserve.live.key_files import KeyFiles, prepare

_LOG: Final = logging.getLogger(__name__)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION: Final = 0xA0  # tag of a field that old certificates leave out
_LONG: Final = 0x80  # of a length that takes more than one byte
_UTC_TIME: Final = 0x17  # with two digits of the year; the other kind has four


class ServedCertificate:
    """A certificate and its key, and with a `client_ca` who may have signed those that clients must show.

    Args:
        settings: where they are.
        where: their place among the settings.

    Raises:
        ConfigError: they cannot be read, or do not belong together.
    """

    def __init__(self, settings: TlsSettings | LinkTlsSettings, where: str = "live.tls") -> None:
        self._settings = settings
        self._client_ca = settings.client_ca if isinstance(settings, LinkTlsSettings) else None
        self._files = KeyFiles((settings.certificate, settings.key, self._client_ca))
        try:
            self.context = self._latest = self._read()
        except OSError as error:
            raise ConfigError(
                f"{where}: {self._files.faulty(error)}",
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
            _LOG.error("the new certificate cannot be used, the one before stays: %s", error)
        else:
            _LOG.info("connections that begin now see the new certificate")

    def _choose(self, connection: ssl.SSLObject, _host: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._latest

    def _read(self) -> ssl.SSLContext:
        made = prepare(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._settings.certificate, self._settings.key)
        if self._client_ca is not None:
            made.load_verify_locations(self._client_ca)
            made.verify_mode = ssl.CERT_REQUIRED
        return made


def authorities_out_of_date(path: str, now: datetime) -> str:
    """Why a file of authorities is good for nothing now, as a clause; empty: one of them is good, or cannot be read here."""
    ends = []
    for text in Path(path).read_text("utf-8", "replace").split(_END)[:-1]:
        try:
            ends.append(_times(text + _END, path)[1])
        except ValueError:
            return ""
    return f"all in it expired by {max(ends):%Y-%m-%d %H:%M} UTC" if ends and now > max(ends) else ""


def holds(path: str) -> tuple[datetime, datetime]:
    """From when until when the first certificate of a PEM file is good.

    Raises:
        ValueError: there is none in it.
        OSError: it cannot be read.
    """
    return _times(Path(path).read_text("utf-8", "replace"), path)


def _times(text: str, path: str) -> tuple[datetime, datetime]:
    begin, end = text.find(_BEGIN), text.find(_END)
    if not 0 <= begin < end:
        raise ValueError(f"{path} holds no certificate")
    try:
        whole = ssl.PEM_cert_to_DER_cert(text[begin : end + len(_END)])
        signed = next(_parts(next(_parts(whole))[1]))[1]
        fields = [one for one in _parts(signed) if one[0] != _VERSION]
        first, last = _parts(fields[3][1])  # after the number, how it is signed, and by whom
        return _time(*first), _time(*last)
    except (ValueError, IndexError, StopIteration):
        raise ValueError(f"{path} holds no certificate") from None


def out_of_date(path: str, now: datetime) -> str:
    """Why a certificate is good for nothing now, as a clause; empty: it is good.

    Raises:
        ValueError: there is none in the file.
        OSError: it cannot be read.
    """
    first, last = holds(path)
    if now > last:
        return f"it expired on {last:%Y-%m-%d %H:%M} UTC"
    return f"it is good from {first:%Y-%m-%d %H:%M} UTC on" if now < first else ""


def _parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of what stands one after another (DER, X.690)."""
    at = 0
    while at < len(data):
        tag, size, at = data[at], data[at + 1], at + 2
        if size & _LONG:
            more = size ^ _LONG
            size, at = int.from_bytes(data[at : at + more], "big"), at + more
        if at + size > len(data):
            raise ValueError("it is cut off")
        yield tag, data[at : at + size]
        at += size


def _time(tag: int, text: bytes) -> datetime:
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC)
