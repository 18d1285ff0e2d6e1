"""Sweeps: every strategy of every cell of a plan, judged, priced and reduced to what is worth keeping."""
