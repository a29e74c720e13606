"""Base: the words every other layer speaks: units, errors, records, configuration, compiled functions, random streams.

Knows no policy and no world. Must not read a clock, a file, the environment, or import any other layer.
Read next: `units` and `errors`, then `config` for the settings tree; `sageserve.core` builds on this layer.
"""
