"""Tables that an archive hands out as a MATLAB file. Such a file is data alone: reading one runs nothing."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.archives.find import does_not_exist
from utils.errors import DataError

MAX_WHOLE = 2**53  # up to here float64 has every whole number


def read_variables(file: Path, way_out: str = "get it again") -> dict[str, Any]:
    """Return the variables of a MATLAB file of version 4 to 7.2; DataError where there is none, or it is damaged."""
    from scipy.io import loadmat  # slow to import

    if not file.exists():
        raise DataError(f"table {does_not_exist(file)}")
    try:
        return loadmat(file)
    except NotImplementedError as error:  # HDF5
        raise DataError(
            f"'{file}' is a MATLAB file of version 7.3, which is not read; take the archive's own, or save it in "
            "MATLAB with -v7"
        ) from error
    except Exception as error:  # each damage has an error of its own
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"'{file}' cannot be read as a MATLAB file ({reason}); {way_out}") from error


def read_whole_numbers(file: Path, name: str, columns: int = 0) -> np.ndarray:
    """Return a matrix of whole numbers, int64 [N, `columns`], 0 = any; DataError for anything else under that name."""
    table = np.asarray(read_variables(file).get(name))
    sound = table.ndim == 2 and table.dtype.kind in "iuf" and table.size > 0
    sound = sound and bool(((np.floor(table) == table) & (np.abs(table) <= MAX_WHOLE)).all())
    if not sound or columns not in (0, table.shape[1]):
        shape = f" of {columns} columns" if columns else ""
        raise DataError(f"'{file}' holds no matrix {name}{shape} of whole numbers; get it again")
    return table.astype(np.int64)
