"""Columns: the working type of every pricing function (a scalar is a column of length one, or of none)."""

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
ColumnLike = npt.ArrayLike


def column(values: ColumnLike) -> Column:
    """Return `values` as a float64 array, without a copy where it is one already.

    >>> column(3)
    array(3.)
    """
    return np.asarray(values, dtype=np.float64)
