"""The gateway: OpenAI's API in front of all instances of all regions, one process per core.

From the socket inwards: `client.py` (connections, limits) > `intake.py` (who asks for what) > `exchange.py` (one request's
way) > `board.py` (where it goes, what is counted) > `upstream.py` (connections to engines) > `answer.py` (what comes back).
Must not hold a policy of its own: `core/route.py` and `core/admit.py` decide. Read next: `desk.py`, what all of them share.
"""
