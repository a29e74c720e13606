"""A fleet that was watched, summed up: would following the decisions have done harm, or helped, and what would it have cost?

    reckon.py     numbers, from minutes and the journal      forecast.py    how good its forecasts were
    shadow_page.py    the page                               read.py        the state folder

Read next: `reckon.py`; docs/how-to/watch.md.
"""
