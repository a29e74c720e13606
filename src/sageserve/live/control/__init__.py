"""Control: the one process that decides for a live fleet, and what it hears, sees, remembers and shows.

`process.py` plugs the parts together; `loop.py` is the controller in wall time. Must not serve requests: gateways do.
Read next: `process.py`, docs/how-to/serve.md.
"""
