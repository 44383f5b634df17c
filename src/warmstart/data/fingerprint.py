"""Whether two runs have seen the same data."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from warmstart.core.batch import Splits


def fingerprint(splits: Splits) -> str:
    """SHA-256 over every value of every part, so that two runs can be told to have seen the same data."""
    digest = hashlib.sha256()
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled):
        for values in () if rows is None else (rows.x, rows.y):
            if isinstance(values, pd.DataFrame):
                plain = values.apply(lambda column: column if is_numeric_dtype(column) else column.map(_hashable))
                values = pd.util.hash_pandas_object(plain, index=False).to_numpy()
            if values is not None and values.dtype == object:
                digest.update(json.dumps(values.tolist()).encode())
            elif values is not None:
                digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _hashable(cell: Any) -> Any:
    """A cell as pandas can hash it."""
    if isinstance(cell, np.ndarray):
        return cell.tobytes()
    return " ".join(cell) if isinstance(cell, list) else cell
