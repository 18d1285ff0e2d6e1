"""Predictions beside measurements: one scorer for each kind, on the rows that ship or on anyone's own."""
