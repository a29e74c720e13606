"""Planning: integer programs that say how many instances each pool should have, and why.

`hourly` is the published program: one target per pool for the next hour. `horizon` is ours: a trajectory over hours, with
deferrable work, traffic between regions and lead times. `explain` re-solves to answer questions. All are pure: a problem of plain
numbers in, a plan out; who measured the numbers and who acts on them is not known here. Read next: `hourly.py`.
"""
