"""Prompts whose blocks are hashed: what they share, and room for what each instance has of it.

    tree.py      blocks become a tree, and chains of it segments
    memory.py    the arrays of prefix caches

Read next: `tree.py`; `sim/kernel/prefix_cache.py` for what is done with it; docs/reference/kernel.md, "Block hashes".
"""
