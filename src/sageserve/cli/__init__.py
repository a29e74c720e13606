"""Cli: the commands: they wire the layers together, render results and turn errors into one readable screen.

The only reader of environment variables and the only writer of stdout. Must not compute results: it asks the
layers below. Read next: `main` (the list of commands).
"""
