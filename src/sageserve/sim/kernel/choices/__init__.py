"""Which instance takes a request, which job of the batch queue goes next, and the choices that rules of the user's make.

    instances.py    the instance
    jobs.py         the job
    shares.py       accounts of tenants that share
    own.py          what a rule of the user's is told, and what it says

Read next: `instances.py`; `sim/kernel/arrive.py`, which asks.
"""
