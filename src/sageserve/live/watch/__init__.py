"""Watching a fleet that others run: the controller of `live/control` with Prometheus in the place of gateways and scrapes.

    looks.py       what one look at a server brings      sightings.py    pools in it, and why one is not seen
    instances.py   engines become rows of the fleet      view.py         servers report as gateways do elsewhere
    demand.py      counters become demand by cell        cells.py        how they are shared out     past.py  before now
    process.py     all of it, until it is stopped        serve.py        metrics and status for others

Writes to its state folder and nowhere else. Read next: `process.py`; docs/how-to/watch.md.
"""
