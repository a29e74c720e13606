"""Who pays what of a run: records of allocated costs, their tables, and the files that finance loads."""
