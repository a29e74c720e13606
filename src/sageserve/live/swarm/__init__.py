"""The live control code under seeded faults in virtual time: whole control processes, gateways' decisions, engines on paper.

Nothing here serves a fleet. Read next: `story.py`, one seed from its beginning to its end; `laws.py`, what must hold.
"""
