"""Who else decides a count: whoever made an object and puts back what is changed there is named, with what to change instead."""

import pytest

from sageserve.live.kubernetes.kinds import KINDS, OWNERS
from sageserve.live.kubernetes.objects import KubeObject
from sageserve.live.kubernetes.rivals import INSTEAD, rival_of


@pytest.mark.parametrize("owner", dict.fromkeys([*KINDS, *OWNERS]))
def test_of_every_owner_that_is_known_it_is_said_what_to_change_instead(owner: str) -> None:
    for kind in ("Deployment", "HorizontalPodAutoscaler"):
        metadata = {"name": "llama", "ownerReferences": [{"kind": owner, "name": "mine"}]}
        said = rival_of(mine := KubeObject({"kind": kind, "metadata": metadata}), mine, [])  # type: ignore[dict-item] # as JSON has it
        known = owner in OWNERS or (owner, kind) == ("ScaledObject", "HorizontalPodAutoscaler")
        assert said.endswith(f"change {INSTEAD[owner]}") if known else not said
