"""What a fleet that ran did over a stretch of time, told from what it kept. Read next: `records.py`, `read.py`."""
