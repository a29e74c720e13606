"""Traces: request logs of any known format become one `Trace`, and what can be done to a whole trace.

`read.py` is the way in; `sources.py`, `formats.py`, `columns.py` and `naming.py` are its stages; `archive.py` is our own format.
Must not know scenarios' files, profiles or results. Read next: `read.py`.
"""
