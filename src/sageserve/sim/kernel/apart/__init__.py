"""What an instance that only prefills still has of requests that are decoded elsewhere. Read next: `sending.py`."""
