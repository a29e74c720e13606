"""Data: files in and out: request traces, generated workloads, results and the decision journal.

Knows formats and columns. Must not decide anything about the fleet, and may import only `sageserve.core` and
`sageserve.base`. Read next: `traces` (readers), `workload` (requests without a file), `scenarios`,
`results` (what a run leaves behind).
"""
