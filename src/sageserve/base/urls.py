"""URLs that people name: how sentences, pages and files may have them. A user and a password in one are sent, and never shown.

Pure. Read next: `cli/urls.py`, which refuses those where nobody can be asked.
"""

import re
from typing import Final

_USER: Final = re.compile("://.*@", re.DOTALL)
_SCHEME: Final = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_HTTP: Final = re.compile(
    r"https?://([^/?#]*@)?(\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s]+)(:(?P<port>[0-9]{1,5}))?([/?#].*)?", re.DOTALL
)
_STORE: Final = re.compile(
    r"postgres(ql)?(\+[a-z0-9]+)?://(.*@)?(\[[^\[\]]*\]|[^\[\]:/?@]*)(:(?P<port>[0-9]{1,5})?)?([/?].*)?", re.DOTALL
)
_PORTS: Final = range(1, 65_536)


def is_url(text: str) -> bool:
    """Whether it is a URL of HTTP at which somebody can be asked."""
    found = _HTTP.fullmatch(text)
    return found is not None and (found["port"] is None or int(found["port"]) in _PORTS)


def is_store(text: str) -> bool:
    """Whether it names a store of batches: a word, or the address of a database that can be asked."""
    if text in {"sqlite", "memory"} or text.startswith("sqlite:///"):
        return True
    found = _STORE.fullmatch(text)
    return found is not None and (found["port"] is None or int(found["port"]) in _PORTS)


def shown_url(url: str) -> str:
    """A URL without all of it that may be a user and a password."""
    scheme, colon, rest = url.partition("://")
    return f"{scheme}{colon}{rest.rpartition('@')[2]}" if colon else url.rpartition("@")[2]


def shown_text(text: str) -> str:
    """A sentence about one setting, which may have a URL in it: without all that may be a user and a password."""
    return _USER.sub("://", text)


def shown_value(value: str) -> str:
    """A value that may be a URL."""
    return shown_url(value) if _SCHEME.match(value) else value
