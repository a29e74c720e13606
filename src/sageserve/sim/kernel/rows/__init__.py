"""Arrays of a simulated world that not every world needs.

    own.py      rules of the user's, compiled
    turns.py    conversations of a closed loop

Read next: `sim/kernel/state.py`, which puts them beside its own.
"""
