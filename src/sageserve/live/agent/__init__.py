"""One hub that plans, agents that act: a hub seals plans, the agent of each cluster fetches its own, judges it and has it done.

    sealed.py       keys, and files that nobody else can have written
    plan_record.py  what a plan says to one cluster, and which versions are understood
    verdict.py      whether a plan may be followed: pure
    source.py       where plans come from: a folder, or a server
    publish.py      the hub's side: a reviewed plan becomes one file for each cluster
    report.py       what an agent says of itself: a file for the hub
    sink.py         where reports go: a folder, or a server
    page.py         its metrics, for Prometheus and for whoever asks whether it is alive
    process.py      the agent: fetch, judge, order, report, beside the hands that act

A hub needs no right in any cluster, and nothing of an agent can be reached from outside. How far a plan is followed is said by
the ladder, the settings and the guard of the cluster's owner, as for every other wish. Read next: `process.py`;
docs/how-to/many-clusters.md.
"""
