"""What the columns of a file mean, and how their cells become numbers, times and codes.

    fields.py     what a column can mean, and its usual names
    formats.py    published traces, a table; tools.py: the logs of engines, benchmarks and providers
    layout.py     a file's columns matched to all of these
    convert.py    a batch of rows becomes numbers, with a reason for every row that cannot; numbers.py, times.py

Must not open a file nor know a scenario. Read next: `layout.py`.
"""
