"""Files with certificates and keys that are renewed while a process runs: when to read them again, and into what.

Nobody need tell: who holds them looks now and then. Knows no setting and no connection. Read next: `engine_access.py` for
engines, `certificates.py` for ports of ours.
"""

import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from sageserve.base.errors import in_words


class KeyFiles:
    """Some files, as they were when they were last looked at.

    Args:
        names: of them; None: there is none.
    """

    def __init__(self, names: Iterable[str | None]) -> None:
        self.paths = tuple(Path(name) for name in names if name is not None)
        self._seen = self._marks()

    def are_others(self) -> bool:
        """Whether one was written anew, or another one put in its place, since this was last asked."""
        before, self._seen = self._seen, self._marks()
        return self._seen != before

    def faulty(self, error: OSError) -> str:
        """Which cannot be used, and why, as a sentence: those that cannot be read, or any of them."""
        unread = [path for path in self.paths if not os.access(path, os.R_OK)]
        return f"{' and '.join(map(str, unread or self.paths))} cannot be used: {in_words(error)}"

    def _marks(self) -> tuple[tuple[int, int, int], ...]:
        """Empty while one is away."""
        try:
            found = [path.stat() for path in self.paths]
        except OSError:
            return ()
        return tuple((one.st_ino, one.st_mtime_ns, one.st_size) for one in found)


def prepare(made: ssl.SSLContext, certificate: str | None, key: str | None) -> ssl.SSLContext:
    """Give a new context what all of ours have: HTTP/1.1 under TLS 1.2 or newer, and our own certificate where there is one.

    Raises:
        OSError: a file cannot be read, or they do not belong together (`ssl.SSLError`).
    """
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    if certificate is not None:
        made.load_cert_chain(certificate, key, password=_none)
    return made


def _none() -> str:
    """No key with a password is asked for one at a terminal."""
    return ""
