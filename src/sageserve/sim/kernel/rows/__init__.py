"""Arrays of a simulated world that not every world needs.

    own.py      rules of the user's, compiled
    shares.py   tenants that share, and the batch queues
    turns.py    conversations of a closed loop

Read next: `sim/kernel/state.py`, which puts them beside its own.
"""
