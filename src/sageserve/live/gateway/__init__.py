"""The gateway: OpenAI's API in front of all instances of all regions, one process per core.

From the socket inwards: `client.py` (connections, limits) > `request.py` (who asks for what) > `exchange.py` (one request's
way) > `routing_state.py` (where it goes, what is counted) > `upstream.py` (connections to engines) > `sse.py` (what comes back).
Must not hold a policy of its own: `core/route.py` and `core/admit.py` decide. Read next: `context.py`, what all of them share.
"""
