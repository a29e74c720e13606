"""The emulated engine: an OpenAI-compatible server that takes as long as the engine model says, and needs no GPU.

    batch.py     continuous batching, one iteration at a time    requests.py    bodies of requests, checked
    text.py      how many tokens, and which words                answers.py     bodies and chunks of answers
    faults.py    what can be made to go wrong                    metrics.py     vLLM's metrics
    engine.py    all of it together                              connection.py  HTTP/1.1
    run.py       the process: clock, signals, port

How long an iteration takes is `core/engine`'s. Its vocabulary is vLLM's where a client or a scraper can see it. It imports
neither `sim` nor a compiler: a process starts in well under a second and costs nothing while nobody asks. Read next:
docs/reference/emulated-engine.md, docs/reference/kernel.md.
"""
