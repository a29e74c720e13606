"""A small engine on a real GPU, measured and then predicted: see `python -m bench.gpu --help`."""
