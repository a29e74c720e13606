"""Pieces of a file become one table of requests: sums expanded, conversations joined, times given, prefixes found.

    rows.py        the table, and how pieces become it
    buckets.py     rows that sum up many requests
    sessions.py    which requests belong together, and when the turns without a time arrive
    arrivals.py    times for files that have none
    prefixes.py    what a cache without bounds finds of prompts whose blocks are hashed

Must not open a file nor know a scenario. Read next: `rows.py`.
"""
