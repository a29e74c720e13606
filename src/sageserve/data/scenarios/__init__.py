"""Scenarios: YAML files, laid over each other, checked, and frozen into one settings tree.

Must not know traces or results. Read next: `load.py`, the way in; `checks.py` for what can be wrong with legal values.
"""
