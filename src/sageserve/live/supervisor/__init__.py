"""The supervisor: the parent of every process of a fleet on one machine, so that none is ever left behind.

    messages.py  what is asked of it and what it tells     parent_death.py  ties a child's life to the supervisor's
    children.py  starts, stops, restarts, buries           logs.py          one file per child, of bounded size
    service.py   the process itself and its Unix socket    client.py        the other end, for the control process

It is small and depends on little, because everything depends on it: it decides nothing, it does as it is told, and it tells
what became of it. Control may die and come back; the supervisor still knows every process and the note that came with it.
"""
