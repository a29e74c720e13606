"""Profiles: how fast an engine is, by name: measured, derived from model and GPU, or from a user's file.

Must not know scenarios. Read next: `library.py`, the way in; `roofline.py` for the arithmetic of derived ones.
"""
