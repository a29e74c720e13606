"""Acting on clusters that others run: decisions become bounds or replicas of their objects, by one writer, and are given back.

    target_object.py   an object: its bounds, who owns them, what was found there, what is applied next
    target_hand.py     one target: looks, decides by its ladder, writes, hears what came of it
    bound_hand.py      its minimum and maximum          count_hand.py   its replicas          drains.py   which pods go
    lease_keeper.py    the lease of a cluster, read and renewed
    orders.py          what people said, and which targets are demoted: a ConfigMap that survives us
    pods.py            who comes, who cannot, and how long a start takes
    guard_file.py      what the cluster's owner allows
    budget.py          how many instances a budget leaves a target
    hands.py           all targets of all clusters, round after round
    give_back.py       the object as it was found

Rules are `core/authority`; nothing here decides how far a bound may move. Read next: `hands.py`; docs/how-to/raise-the-floor.md.
"""
