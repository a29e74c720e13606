"""How much batch work may pass somebody else's gate: the batch queue's own rule as a rate, leased to llm-d-async on Redis.

    room.py     what the feed rule leaves, as requests a second      lease.py    the hash that the gate reads
    writer.py   one gate's leases, in Redis                          keeper.py   all gates, as long as a process watches

Read next: docs/how-to/llm-d-async.md.
"""
