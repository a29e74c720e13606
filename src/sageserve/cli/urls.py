"""URLs given as options: refused as what they are where nobody can be asked. Asks nobody. Read next: `base/urls.py`."""

from sageserve.base.errors import ConfigError
from sageserve.base.urls import is_url


def checked_url(option: str, text: str, such_as: str) -> str:
    """A URL of HTTP.

    Raises:
        ConfigError: it is none; one that may hold a password is not shown.
    """
    import httpx

    try:
        fits = is_url(text) and bool(httpx.URL(text).host)
    except (ValueError, httpx.InvalidURL):  # of signs that are in no name of a host
        fits = False
    if not fits:
        said = "what was given" if "@" in text else repr(text)
        raise ConfigError(f"{option}: {said} is no URL", hint=f"such as {such_as}")
    return text
