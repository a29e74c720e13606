"""Live: the world in wall time: gateway, actuators and the loop that feeds the core with stamped events.

The only layer that uses asyncio. Must not hold a policy of its own and must not import `sim` or `show`. Read
next: `docs/why/architecture.md`, section "The seam", for what a world owes the core.
"""
