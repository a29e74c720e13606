"""An address of an engine is honoured or refused: nothing of it is dropped, and none is spoken to in the clear instead."""

import pytest
from pydantic import ValidationError

from sageserve.base.config import EngineAccess, FixedInstance, LiveSettings


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7:8000", "http://engine", "http://[::1]:8000", "http://h:1/under/a/path", "https://h:1"]
)
def test_addresses_that_are_honoured(url: str) -> None:
    assert FixedInstance(region="east", model="m", url=f"{url}/").url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://user:pw@h:1",
        "https://h:1/v1",
        "h:8000",
        "ftp://h",
        "http://",
        "http://user:pw@h:1",
        "http://h:1/v1",
        "http://h:1/v1/",
        "http://h:99999",
        "http://h:0",
        "http://h/?a=b",
        "http://h/#a",
        "http://h /",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        FixedInstance(region="east", model="m", url=url)


@pytest.mark.parametrize(
    "access",
    [
        {"certificate": "/a.crt"},
        {"key": "/a.key"},
        {"bearer_file": "/key", "bearer_env": "KEY"},
        {"ca_file": "relative.pem"},
        {"bearer_env": "sk-12-34"},
    ],
)
def test_half_an_access_is_refused(access: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        EngineAccess(**access)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"url": "https://h:1", "access": "nowhere"}, {}, "live.access has no 'nowhere'; it has signed"),
        ({"url": "http://h:1", "access": "signed"}, {}, "the address is not https"),
        ({"url": "https://h:1", "access": "signed"}, {"url": "https://h:1"}, "another access"),
    ],
)
def test_an_access_that_cannot_be_kept_is_refused(one: dict[str, str], other: dict[str, str], why: str) -> None:
    placed = [{"region": "east", "model": "m", **given} for given in (one, other) if given]
    with pytest.raises(ValidationError, match=why):
        LiveSettings.model_validate({"instances": placed, "access": {"signed": {"ca_file": "/ca.pem"}}})
