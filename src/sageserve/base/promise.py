"""How long after its arrival a request is promised its first token, or (batch work) its end: a limit for all, or one by prompt.

Pure arithmetic on one request. Read next: `base/config/rules.py`, TierSettings, for where a tier's numbers come from;
`core/perf.py`, where it is compiled.
"""


def allowed(patience: int, growth: int, prompt: int) -> int:
    """Microseconds from arrival to the promise, rounded down.

    Args:
        patience: of a prompt without a token, microseconds.
        growth: more for every 1,000 tokens of prompt, microseconds; also those that are found in a prefix cache.
        prompt: tokens.
    """
    return patience + growth * int(prompt) // 1000  # not in the int32 of a request's tokens
