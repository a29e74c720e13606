"""The kernel: the compiled loop of the simulator, from the front door to an engine's last token.

Everything here is compiled and works on the memory of `state.py`; strategies and the controller stay outside.
Read next: `engine.py`, the loop; docs/reference/kernel.md for the rules.
"""
