"""The durable part of the Files and Batch APIs: what must survive whatever process is killed.

`models.py` says what there is and how it moves, `interface.py` what a store does; `memory.py` and `sql.py` do it. All of them
pass one contract suite. Must not know HTTP or the event loop. Read next: `models.py`.
"""
