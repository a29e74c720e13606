"""A profile of another model than is served is pointed out; one of the same shape, or of a model nobody knows, is not.

Read next: `src/sageserve/data/profiles/naming.py`.
"""

import pytest

from sageserve.data.profiles.naming import other_model
from sageserve.data.scenarios.load import load


@pytest.mark.parametrize(
    ("profile", "served", "other"),
    [
        ("llama-3.1-8b", "llama-3.3-70b", True),
        ("llama-3.1-8b", "meta-llama/Llama-3.3-70B-Instruct", True),
        ("llama-3.1-70b", "llama-3.3-70b", False),
        ("llama-3.3-70b-fp8", "llama-3.3-70b", False),
        ("llama-3.1-8b", "our-assistant", False),
        ("", "llama-3.3-70b", False),
    ],
)
def test_models_are_told_apart_by_their_shapes(profile: str, served: str, other: bool) -> None:
    assert bool(other_model(profile, served)) is other


def test_a_scenario_says_so_once_for_each_engine() -> None:
    given = "models.llama-3.3-70b.engines.h200=llama-3.1-8b/h200/tp1"
    said = "the profile llama-3.1-8b/h200/tp1 is of llama-3.1-8b, 8.03 billion parameters; llama-3.3-70b has 70.55"
    assert load("quickstart", overrides=[given]).remarks() == [f"models.llama-3.3-70b.engines.h200: {said}"]
    assert load("quickstart").remarks() == []


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], ["fleet.idle: no endpoint has a minimum of 0, so that none is ever left without instances"]),
        (["fleet.minimum=0"], []),
        (["fleet.endpoints={us-east/*: {minimum: 0}}"], []),
    ],
)
def test_an_idle_time_that_no_endpoint_obeys_is_remarked(more: list[str], said: list[str]) -> None:
    assert load("quickstart", overrides=["fleet.idle=5m", *more]).remarks() == said


def test_tenants_of_whom_nobody_is_turned_away_are_remarked() -> None:
    said = ["tenants: with admission off nobody is turned away, so that they share the batch queue alone"]
    assert load("quickstart", overrides=["tenants.a.weight=2", "admission=off"]).remarks() == said
    assert load("quickstart", overrides=["tenants.a.weight=2"]).remarks() == []
