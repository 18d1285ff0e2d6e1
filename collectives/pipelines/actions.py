"""One piece of work on one device: the word that schedules are written in."""

from typing import NamedTuple

FORWARD, BACKWARD, INPUT, WEIGHT = "F", "B", "I", "W"


class Action(NamedTuple):
    """One piece of work on one device.

    Attributes
    ----------
    kind
        `F` forward, `B` whole backward, `I` gradient of the input alone, `W` gradient of the weights alone.
    virtual
        Virtual stage, 0 at the model's first layer.
    microbatch
        0 … m - 1; of two pipes each takes its own micro-batches.
    pipe
        Which copy of the model: 0, or 1 for the opposite direction.
    paired
        Runs overlapped with the action before it in the device's list: both start and end together (DualPipe's F&B).

    Examples
    --------
    >>> Action("F", 0, 3)
    Action(kind='F', virtual=0, microbatch=3, pipe=0, paired=False)
    """

    kind: str
    virtual: int
    microbatch: int
    pipe: int = 0
    paired: bool = False
