"""What watching a fleet leaves, minute by minute: what ran, what would have run, what was needed. Read next: `minutes.py`."""
