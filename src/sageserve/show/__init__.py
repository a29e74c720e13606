"""Show: readers of results: charts, reports and comparisons of finished or running fleets.

Reads what `data` stores and nothing else; must not run, change or decide anything, and must not import `sim`
or `live`. Read next: `sageserve.data` for the formats it reads.
"""
