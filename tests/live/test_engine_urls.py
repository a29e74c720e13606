"""An address of an engine is honoured or refused: nothing of it is dropped, and none is spoken to in the clear instead."""

import pytest
from pydantic import ValidationError

from sageserve.base.config import FixedInstance


@pytest.mark.parametrize("url", ["http://10.0.0.7:8000", "http://engine", "http://[::1]:8000", "http://h:1/under/a/path"])
def test_addresses_that_are_honoured(url: str) -> None:
    assert FixedInstance(region="east", model="m", url=f"{url}/").url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://h:1",
        "h:8000",
        "ftp://h",
        "http://",
        "http://user:pw@h:1",
        "http://h:1/v1",
        "http://h:1/v1/",
        "http://h/?a=b",
        "http://h/#a",
        "http://h /",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        FixedInstance(region="east", model="m", url=url)
