"""How the tables came about, step by step; applied when a store is opened. Read next: `versions/`."""
