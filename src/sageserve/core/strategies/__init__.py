"""Strategies: rules that decide how many instances each pool has, one module each behind one protocol.

A strategy sees the fleet and the scraped signals, never the future and never the true output length of a
request; it proposes, the controller carries out. Read next: the protocol's module in this folder, then
`siloed`, the simplest.
"""
