"""Base: the words of every other layer: units, errors, records, settings, compiled functions, random streams.

Knows no policy and no world. Must not read a clock, a file, the environment, or import any other layer. Read
next: `units` and `errors`, then `config` for the settings tree; `sageserve.core` builds on this layer.
"""
