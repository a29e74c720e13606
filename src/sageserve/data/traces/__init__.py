"""Traces: request logs of any known format become one `Trace`, and what can be done to a whole trace.

`requests.py` is the way in for commands and `read.py` for one file; `readers/`, `columns/`, `assembly/` and `naming.py` are its
stages; `changes/` is what is done to whole traces; `archive.py` is our own format.
Must not know scenarios' files, profiles or results. Read next: `read.py`.
"""
