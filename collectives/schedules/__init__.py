"""Schedules of rounds, one module per family of algorithms; the table of them is in `collectives.schedule`."""
