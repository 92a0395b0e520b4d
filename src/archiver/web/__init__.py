"""The public HTTP interface. ``app.py`` has every route on one page."""
