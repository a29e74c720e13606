"""An Envoy in the place of our gateways: it is told what they are told, and what it counts is reported as theirs is.

    control  -- RoutingTable -->  this process  -- files of EDS and RDS -->  Envoy
    control  <-- Report --------  this process  <-- its admin page --------  Envoy

Envoy reads files that are moved into place, and keeps the last ones; so it goes on when control or this process is gone. Its
listeners and clusters are its owner's. Read next: `resources.py` for what it is told, `counts.py` for what is reported,
`process.py`; docs/how-to/envoy.md.
"""
