"""SageServe: decide how a fleet of LLM engines is scaled, routed and scheduled, in a simulator and live.

Knows only its version. It imports nothing, so that `import sageserve` costs nothing. Read next:
`sageserve.base` (the words), `sageserve.core` (the decisions), `docs/why/architecture.md` (the layers).
"""

__version__ = "0.1.0"
