"""What the model does on a cluster: shapes, strategies, memory, training, serving, search and scoring.

>>> from parallel import Columns, read_model
>>> read_model("deepseek-v3").hidden, Columns.of(tp=[1, 8]).rows
(7168, 2)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from parallel.compare import CompareRequest
    from parallel.executors import run
    from parallel.io import model_names, read_model
    from parallel.models import Model, active_parameters, parameters
    from parallel.priced import Priced
    from parallel.scenario import serve, train
    from parallel.serving.phases import ServeJob
    from parallel.strategy import Columns, Space
    from parallel.sweeps.answer import sweep
    from parallel.sweeps.plan import Sweep
    from parallel.sweeps.spaces import all_serve, all_train, usual_serve, usual_train
    from parallel.sweeps.task import Ask, Task
    from parallel.training.layer import TrainJob
    from parallel.validation.sets import validate
    from parallel.workload import ServeWorkload, TrainWorkload

_HOMES: Final = {
    "parallel.compare": ("CompareRequest",),
    "parallel.executors": ("run",),
    "parallel.io": ("model_names", "read_model"),
    "parallel.models": ("Model", "active_parameters", "parameters"),
    "parallel.priced": ("Priced",),
    "parallel.scenario": ("serve", "train"),
    "parallel.serving.phases": ("ServeJob",),
    "parallel.strategy": ("Columns", "Space"),
    "parallel.sweeps.answer": ("sweep",),
    "parallel.sweeps.plan": ("Sweep",),
    "parallel.sweeps.spaces": ("all_serve", "all_train", "usual_serve", "usual_train"),
    "parallel.sweeps.task": ("Ask", "Task"),
    "parallel.training.step": ("TrainJob",),
    "parallel.validation.sets": ("validate",),
    "parallel.workload": ("ServeWorkload", "TrainWorkload"),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Ask",
    "Columns",
    "CompareRequest",
    "Model",
    "Priced",
    "ServeJob",
    "ServeWorkload",
    "Space",
    "Sweep",
    "Task",
    "TrainJob",
    "TrainWorkload",
    "active_parameters",
    "all_serve",
    "all_train",
    "model_names",
    "parameters",
    "read_model",
    "run",
    "serve",
    "sweep",
    "train",
    "usual_serve",
    "usual_train",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import a public name's module when the name is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'parallel' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
