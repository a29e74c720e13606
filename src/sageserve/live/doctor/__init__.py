"""`sageserve doctor`: is what we would decide on there, true and allowed? Each check has an id, a proof and a next step.

    checks.py    all checks: what each proves, how bad it is         facts.py    everything that is looked up, once for all
    metrics.py   Prometheus: reach, clock, history, series           access.py   the API server, rights, the lease
    writers.py   objects and who else writes them                    keda.py     KEDA's triggers, fallback, external metrics
    pods.py      draining, quotas, pods that wait                    promises.py profiles, promises, the batch gate
    run.py       all of it, at once, within seconds

Reads only. Read next: docs/reference/doctor.md.
"""
