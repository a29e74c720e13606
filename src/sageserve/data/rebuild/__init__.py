"""Requests made again from what counters and histograms recorded of them.

    demand.py      which counts are taken: gateways' before engines'       tiers.py    service classes that were not recorded
    lengths.py     lengths from buckets and sums                           requests.py a trace of all of it
    joint.py       whether answers go with prompts
    filed.py       histories that lie in files                          places.py   whose series are whose
    fleet.py       how many instances there were, for `recorded`
    recount.py     made requests counted again: the check, and the error   render.py   a played trace as engines would show it

Read next: docs/reference/reconstruction.md for the method and what it is worth.
"""
