"""Core: the decisions. Events and a time go in, actions come out; the same in the simulator and live.

Pure, synchronous and deterministic: must not read a clock, do I/O or draw randomness of its own, and may
import only `sageserve.base`. Read next: `events` and `actions` (the seam), `fleet` (the state), `controller`
(the parent).
"""
