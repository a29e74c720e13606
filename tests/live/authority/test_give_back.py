"""What was found is given back: value, owner, and no trace of us, whatever happened in between."""

import pytest

from sageserve.base.units import MINUTE, SECOND
from sageserve.live.authority.give_back import give_back
from sageserve.live.authority.orders import KEY, read_orders
from sageserve.live.authority.target_object import ORIGINAL, TargetObject
from sageserve.live.kubernetes.objects import Json, KubeObject
from sageserve.live.kubernetes.writer import NotWritten, ObjectPlace
from tests.live.authority.stage import SPACE, USER, Field, acted_on, played, settled

HPA = "HorizontalPodAutoscaler"
OURS = "sageserve-small"


@pytest.mark.parametrize("kind", [HPA, "ScaledObject"])
@pytest.mark.parametrize("rung", ["floor", "bounds"])
@pytest.mark.parametrize(("low", "wants"), [(None, 9), (3, 9), (3, 3)])
def test_an_object_is_as_it_was_found(kind: str, rung: str, low: int | None, wants: int) -> None:
    async def story() -> None:
        field = await Field(kind).made(low=low, count=9)
        before, owned = field.bare(), TargetObject(field.found()).owners(("spec", "scaleTargetRef", "name"))
        process = await settled(field, acted_on(kind, authority=rung, take_over=True))
        field.wants = wants
        await field.run(process, 2 * MINUTE, 30 * SECOND)
        said = await give_back(field.outside(), field.place, OURS)
        assert not isinstance(said, NotWritten)
        assert field.bare() == before
        seen = TargetObject(field.found())
        assert seen.owners(("spec", "scaleTargetRef", "name")) == owned == [USER.manager]
        assert (await give_back(field.outside(), field.place, OURS)) == ()

    played(story)


def test_a_value_that_is_the_same_as_it_was_found_does_not_go_with_us() -> None:
    async def story() -> None:
        field = await Field(HPA).made(low=3, count=9)
        process = await settled(field, acted_on(HPA, take_over=True))
        field.wants = 9
        await field.run(process, MINUTE, 30 * SECOND)
        field.wants = 3
        await field.run(process, 60 * MINUTE, 2 * MINUTE)
        assert field.bounds()[0] == 3
        assert TargetObject(field.found()).owners(("spec", "minReplicas")) == [OURS]
        await give_back(field.outside(), field.place, OURS)
        assert field.bounds()[0] == 3
        assert TargetObject(field.found()).owners(("spec", "minReplicas")) == [USER.manager]

    played(story)


def test_what_its_user_has_taken_meanwhile_stays_theirs() -> None:
    async def story() -> None:
        field = await Field().made(low=1, count=9)
        process = await settled(field, acted_on(take_over=True))
        field.wants = 9
        await process.turn()
        await field.user_writes({"spec": {"minReplicaCount": 4}})
        said = await give_back(field.outside(), field.place, OURS)
        assert said == ("spec.minReplicaCount stays 4: kubectl-client-side-apply has taken it",)
        assert field.bounds()[0] == 4
        assert field.found().annotations == {}

    played(story)


@pytest.mark.parametrize("text", ["{", "3", '{"x":' + "[" * 100_000])
def test_what_another_wrote_in_the_place_of_ours_is_none_of_ours_and_ends_nothing(text: str) -> None:
    async def story() -> None:
        field = Field()
        named: dict[str, Json] = {"name": "orders", "namespace": SPACE}
        field.cluster.put({"kind": "ConfigMap", "metadata": named, "data": {KEY: text}})
        found = await read_orders(field.outside(), ObjectPlace("ConfigMap", SPACE, "orders"))
        assert isinstance(found, NotWritten)
        assert "orders.json of ConfigMap serving/orders is not ours" in found.detail
        assert TargetObject(KubeObject({"metadata": {"annotations": {ORIGINAL: text}}})).original() == {}

    played(story)
