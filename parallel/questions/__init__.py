"""Questions asked of priced points: what moves them, where two designs break even, how small a cluster can be, what changed."""
