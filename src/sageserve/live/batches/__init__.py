"""The Files and Batch APIs: what clients send and see, and how jobs get run.

`routes.py` is the door, `runner.py` does the work, both over one store (`live/store`). Read next: `runner.py`.
"""
