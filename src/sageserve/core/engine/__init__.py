"""The rules of an engine: how long an iteration takes and, with it, what a request costs.

Plain functions of numbers and rows: the simulator compiles them (`core/perf.py`), the emulated engine runs them as they are, and
neither imports a compiler here. Must not know a fleet, a clock or a file. Read next: `timing.py`.
"""
