"""Moved to `parallel.sweeps`."""

from parallel.sweeps.evaluate import BLOCK
from parallel.sweeps.spaces import space_of, usual_serve, usual_train
from parallel.sweeps.task import PHASES, Bound, Task

serve_space, train_space = usual_serve, usual_train
__all__ = ["BLOCK", "PHASES", "Bound", "Task", "serve_space", "space_of", "train_space"]
