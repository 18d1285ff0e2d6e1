"""One training step: layers, placement on stages, memory, and the step that they add up to."""
