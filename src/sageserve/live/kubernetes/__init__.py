"""A Kubernetes cluster: kinds, objects, reading and writing them, and an API server of our own that answers as a real one does.

    kinds.py     groups, plurals, and where each kind keeps its count      objects.py      one object, looked into by path
    follower.py  objects of a kind, listed and then watched                endpoints.py    engines behind a Service
    reader.py    get, list, version, and what we may do                    writer.py       apply, patches, scale, versions
    fake.py      the server for tests: what it holds                       fake_api.py     the same over HTTP: lists, watches
    fake_writes.py   writes to it, refused as a real one refuses them      fake_fields.py  who owns which field

`sageserve doctor` only reads. lightkube is an extra and imported late. Read next: `live/doctor/`.
"""
