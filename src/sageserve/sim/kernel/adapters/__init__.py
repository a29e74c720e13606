"""LoRA adapters in engines: which are loaded, who waits for a slot. Read next: `slots.py`, `passing.py`."""
