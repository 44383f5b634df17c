"""Tables: numbers are filled and scaled, categories become one column per value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from warmstart.contracts import UserError
from warmstart.data.numbers import read_frame, to_names, to_numbers


class Preprocessor:
    """Fitted by scikit-learn on the training rows; kept as plain numbers and names.

    Args:
        categorical: columns whose values are names; all others are numbers.
        missing: what stands in for an empty number: mean, median, or error to refuse it.
        columns: the fitted state, one record per column.
    """

    def __init__(self, categorical: list[str], missing: str = "error", columns: list[dict[str, Any]] | None = None):
        self.categorical, self.missing, self.columns = categorical, missing, columns

    def fit(self, x: pd.DataFrame) -> None:
        """Fill values, means, standard deviations and category names, column by column."""
        self.columns = []
        for name in x:
            if name in self.categorical:
                encoder = OneHotEncoder().fit(self._names(x[name]))
                self.columns.append({"name": str(name), "values": [str(v) for v in encoder.categories_[0]]})
            else:
                values = self._numbers(x[name])
                strategy = self.missing if self.missing != "error" else "mean"
                imputer = SimpleImputer(strategy=strategy, keep_empty_features=True).fit(values)
                scaler = StandardScaler().fit(imputer.transform(values))
                self.columns.append(
                    {
                        "name": str(name),
                        "fill": float(imputer.statistics_[0]),
                        "mean": float(scaler.mean_[0]),
                        "std": float(scaler.scale_[0]),
                    }
                )

    def encode(self, x: pd.DataFrame) -> Tensor:
        """Float tensor (N, F); a category never seen in training is all zeros.

        Raises:
            UserError: a fitted column is not there, or holds what it must not.
        """
        absent = [column["name"] for column in self.columns if column["name"] not in x]
        if absent:
            raise UserError(f"the table has no column {absent[0]}; it has: {', '.join(map(str, x.columns))}")
        parts = []
        for column in self.columns:
            cells = x[column["name"]]
            if "values" in column:
                parts.append(self._names(cells) == np.array([column["values"]], dtype=object))
            else:
                values = self._numbers(cells)
                filled = np.where(np.isnan(values), column["fill"], values)
                parts.append((filled - column["mean"]) / column["std"])
        return torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))

    def __call__(self, x: Tensor) -> Tensor:
        """Unchanged: encoding has scaled everything."""
        return x

    def read(self, path: str) -> tuple[pd.DataFrame, None]:
        """A CSV or Parquet file that has the fitted columns; others are ignored."""
        return read_frame(path), None

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "kind": "table",
            "categorical": list(self.categorical),
            "missing": self.missing,
            "columns": self.columns,
        }

    def _numbers(self, cells: pd.Series) -> np.ndarray:
        values = to_numbers(cells, "table", "; name the column in data.categorical or data.ignore")
        if self.missing == "error" and np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise UserError(
                f"table, row {row + 1}, column {cells.name}: the value is missing; add data.missing=mean or median"
            )
        return values[:, None]

    def _names(self, cells: pd.Series) -> np.ndarray:
        return to_names(cells)[:, None]
