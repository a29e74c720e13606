"""Which instance takes a request, and the choices that rules of the user's make.

    instances.py    the instance
    own.py          what a rule of the user's is told, and what it says

Read next: `instances.py`; `sim/kernel/arrive.py`, which asks.
"""
