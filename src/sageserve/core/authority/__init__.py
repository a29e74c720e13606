"""How far a target of another's may be acted on: a ladder of rungs for each target, and one writer for all of them.

    records.py   rules, what is seen, what is wished, what is written, why it is not
    steps.py     how far a bound may move now: ramp, pace, headroom
    ladder.py    one target: its rung, demotions, and what it is written next
    lease.py     who of several processes may write, under which epoch, and until when

Functions and state machines of a time that is passed in; no client, no clock. Read next: `ladder.py`.
"""
