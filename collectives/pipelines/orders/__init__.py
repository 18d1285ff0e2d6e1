"""Generators of orders: (stages, micro-batches, chunks) → who does what, in which order."""
