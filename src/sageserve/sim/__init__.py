"""Sim: the world in virtual time: a trace meets simulated engines and the decisions of the core.

Owns the clock of a run. Must not hold a policy of its own (it calls the core's) and must not import `live` or
`show`. Read next: `run` (one run from start to end), `kernel` (the compiled loop), `world`
(the seam).
"""
