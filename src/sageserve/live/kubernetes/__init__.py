"""A Kubernetes cluster, read: kinds, objects, and an API server of our own that answers as a real one does.

    kinds.py     groups, plurals, and where each kind keeps its count      objects.py    one object, looked into by path
    reader.py    get, list, version, and what we may do                    fake.py       the server for tests: what it holds
    fake_api.py  the same over HTTP: lists, watches, reviews

Nothing is written here. lightkube is an extra and imported late. Read next: `live/doctor/`.
"""
