"""Tables that an archive hands out as a MATLAB file. Such a file is data alone: reading one runs nothing."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.archives.find import does_not_exist
from utils.errors import DataError


def read_variables(file: Path, way_out: str = "get it again") -> dict[str, Any]:
    """Return the variables of a MATLAB file of version 4 to 7.2; DataError where there is none, or it is damaged."""
    from scipy.io import loadmat  # slow to import

    if not file.exists():
        raise DataError(f"table {does_not_exist(file)}")
    try:
        return loadmat(file)
    except Exception as error:  # each damage has an error of its own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"'{file}' cannot be read as a MATLAB file ({reason}); {way_out}") from error


def read_whole_numbers(file: Path, name: str, columns: int = 0) -> np.ndarray:
    """Return a matrix of whole numbers, int64 [N, `columns`], 0 = any; DataError for anything else under that name."""
    table = np.asarray(read_variables(file).get(name))
    sound = table.ndim == 2 and table.dtype.kind in "iuf" and table.size > 0
    if not sound or columns not in (0, table.shape[1]) or (table != np.floor(table)).any():
        shape = f" of {columns} columns" if columns else ""
        raise DataError(f"'{file}' holds no matrix {name}{shape} of whole numbers; get it again")
    return table.astype(np.int64)
