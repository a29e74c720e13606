"""Actuators: what carries out the controller's Start, Reclaim, Donate and Release. They do not import each other.

    base.py     the protocol, and what an instance row stands for     fake.py    in memory, in the time it is told
    local.py    processes of this machine, through the supervisor         commands.py    command templates of engines
    fixed.py    addresses that settings have                          followed.py    engines that others start and end

One contract suite runs over all of them (tests/live/actuators).
"""
