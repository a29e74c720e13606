"""Ray Serve: deployments of a Ray cluster as objects with bounds or a count, through its dashboard's REST API.

    dashboard.py    the API itself, each answer or one sentence
    deployments.py  what its answers mean: pure
    own_file.py     what Ray keeps for nobody: the lease, orders, and whose a value is
    writer.py       all of it as the objects that hands act on
    fake.py         a dashboard for tests
    policy.py       runs in Ray's own process: a floor below what its autoscaler wants

Rules are those of every target: `live/authority` decides, and cannot tell Ray from Kubernetes. Read next: `writer.py`;
docs/how-to/ray-serve.md.
"""
