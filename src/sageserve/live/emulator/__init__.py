"""The emulated engine: an OpenAI-compatible server that takes as long as the engine model says, and needs no GPU.

    timing.py    the five coefficients, as plain numbers         batch.py       continuous batching, one iteration at a time
    text.py      how many tokens, and which words                requests.py        bodies of requests, checked
    answers.py   bodies and chunks of answers                    metrics.py      vLLM's metrics
    faults.py    what can be made to go wrong                    connection.py  HTTP/1.1
    engine.py    all of it together                              run.py         the process: clock, signals, port

Its vocabulary is vLLM's where a client or a scraper can see it. It imports neither `sim` nor a compiler: a process starts in
well under a second and costs nothing while nobody asks. Read next: docs/reference/emulated-engine.md, docs/reference/kernel.md.
"""
