"""What policies would have cost on a fleet's past: requests made of a history, played, and how far that may be off.

    exported.py   a run as its engines would have shown it: what a history of it would be
    replayed.py   the check: does `recorded` look as the history did, hour by hour?
    own_error.py  how far the answer is off because requests were made of counters
    policies.py   which cells are played for it                answer.py   all of it, for people and machines

Knows no server and no file of series. Read next: docs/how-to/backtest.md, `data/rebuild/`.
"""
