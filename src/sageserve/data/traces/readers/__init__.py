"""Files as batches of columns, whatever their kind: bytes in, arrow columns with line numbers out.

    sources.py    opens a file and tells its kind by its bytes
    csv_file.py, json_file.py, arrow_file.py    read that kind
    records.py    one JSON record that holds several requests becomes one record each

Must not convert a cell nor refuse a request. Read next: `sources.py`, and `columns/` for what becomes of the columns.
"""
