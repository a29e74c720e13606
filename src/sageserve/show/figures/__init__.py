"""One module per section of the report: from reduced data to a Plotly figure, its table and its words.

Modules here know no files and do not know each other; `parts.py` is what they are all made of. Read next:
`parts.py`, `show/report.py`.
"""
