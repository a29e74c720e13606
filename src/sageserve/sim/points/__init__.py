"""Public points of engines: what a profile says of them (`predict.py`), and a derived profile fitted to them (`fit.py`)."""
