"""What is done to whole traces: several joined, a part cut out, the speed and the load changed, demand summed.

Each function takes traces and returns one that says in its notes what was done. Must not read files. Read next: `transform.py`.
"""
