"""Claims that are still to be written."""

ROWS = ()
