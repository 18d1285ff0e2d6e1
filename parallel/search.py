"""Moved to `parallel.sweeps.found`."""

from parallel.sweeps.found import Found, merge, pareto

__all__ = ["Found", "merge", "pareto"]
