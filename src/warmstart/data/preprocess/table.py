"""Preprocessor of tables: imputes and standardizes numbers, one-hot encodes categories."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from warmstart.core import protocols, screen
from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.data.duplicates.text import TableRows
from warmstart.data.readers.columns import to_names, to_numbers
from warmstart.data.readers.files import listed
from warmstart.data.readers.table import Dialect, read_table

if TYPE_CHECKING:
    from torch import Tensor

GIVEN = "the table"  # name of the input table of a trained model in messages


class Preprocessor(protocols.Preprocessor):
    """Fitted with scikit-learn on the training rows; the state is plain numbers and strings.

    Args:
        categorical: columns with categories; all others have numbers.
        missing: imputation of missing numbers: mean, median, or error to raise an error.
        columns: fitted state, one dict per column; a missing category is the value None.
        dialect: format of the tables.
    """

    abilities: ClassVar = frozenset({"fill_columns"})

    def __init__(
        self,
        categorical: list[str],
        missing: str = "error",
        columns: list[dict[str, Any]] | None = None,
        dialect: dict[str, Any] | None = None,
    ):
        self.categorical, self.missing, self.columns = categorical, missing, columns
        self.dialect = Dialect(**(dialect or {}))

    @property
    def names(self) -> list[str]:
        """Columns that a table must have."""
        return [column["name"] for column in self.columns]

    def fit(self, x: pd.DataFrame) -> None:
        """Compute fill values, means, standard deviations and categories of each column."""
        categories, numbers = self.check(x)
        fitted: dict[str, dict[str, Any]] = {}
        for name, cells in categories.items():
            distinct = set(cells)
            fitted[name] = {"values": [*sorted(distinct - {None}), *({None} & distinct)]}
        if numbers:
            values = np.stack([*numbers.values()], axis=1)
            strategy = self.missing if self.missing != "error" else "mean"
            imputer = SimpleImputer(strategy=strategy, keep_empty_features=True).fit(values)
            scaler = StandardScaler().fit(imputer.transform(values))
            for name, *moments in zip(numbers, imputer.statistics_, scaler.mean_, scaler.scale_):
                fitted[name] = dict(zip(("fill", "mean", "std"), map(float, moments)))
        self.columns = [{"name": name, **fitted[name]} for name in map(str, x)]

    def check(self, x: pd.DataFrame, where: str = "table") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the categories and the numbers of each column (N,) of the table `where`, by column name.

        Raises:
            UserError: a cell has an invalid value.
        """
        categories = {str(name): to_names(x[name], where) for name in x if name in self.categorical}
        advice, remedy = "; name the column in data.categorical or data.ignore", "add data.missing=mean or median"
        numbers = [name for name in x if name not in self.categorical]
        return categories, {str(name): self._numbers(x[name], where, advice, remedy) for name in numbers}

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return this preprocessor with the table format of another one, `own`."""
        return Preprocessor(self.categorical, self.missing, self.columns, own.dialect.state())

    def encode(self, x: pd.DataFrame) -> Tensor:
        """Return float32 (N, F); unseen categories are encoded as zeros, with a warning.

        Raises:
            UserError: a column is missing or has an invalid value.
        """
        absent = [name for name in self.names if name not in x]
        if absent:
            raise UserError(
                f"the table has no column {', '.join(absent)}, which the model was trained on; add it, or to "
                "predict without, data.missing_columns=fill"
            )
        encoded = []
        for column in self.columns:
            cells = x[column["name"]]
            if "values" in column:
                encoded.append(self._one_hot(cells, column["values"]).astype(np.float32))
            else:
                advice = "; the model was trained on numbers in this column"
                remedy = "fill it in, or train with data.missing=mean or median"
                values = self._numbers(cells, GIVEN, advice, remedy, is_fitted=True)
                filled = np.where(np.isnan(values), column["fill"], values)
                encoded.append(((filled - column["mean"]) / column["std"])[:, None].astype(np.float32))
        import torch  # imported late, so that a table is checked quickly

        return torch.from_numpy(np.concatenate(encoded, axis=1))

    def __call__(self, x: Tensor) -> Tensor:
        """Return x: `encode` has standardized the columns."""
        return x

    def comparison(self) -> TableRows:
        """Return a comparison of rows by the fitted columns, or by all columns before fitting."""
        return TableRows(self.categorical, None if self.columns is None else self.names)

    def read(self, path: str) -> Inputs:
        """Read a table; columns that were not fitted are ignored later."""
        frame = read_table(Path(path), self.dialect)
        return Inputs(frame, frame.index.tolist())

    def fill_columns(self, x: pd.DataFrame) -> pd.DataFrame:
        """Add missing columns to a table, with the fill value of numbers and missing categories."""
        x = x.copy()
        for column in self.columns:
            name = column["name"]
            if name not in x:
                x[name] = column.get("fill")
                value = "missing" if "values" in column else f"{column['fill']:g}"
                screen.say(f"warning: the table has no column {name}: every cell is {value}", style="yellow")
        return x

    def state(self) -> dict[str, Any]:
        return {
            "kind": "table",
            "categorical": list(self.categorical),
            "missing": self.missing,
            "columns": self.columns,
            "dialect": self.dialect.state(),
        }

    def _numbers(self, cells: pd.Series, where: str, advice: str, remedy: str, is_fitted: bool = False) -> np.ndarray:
        """Return the numbers of a column (N,), as `to_numbers` does; `remedy` is for a missing value."""
        values = to_numbers(cells, where, advice, is_fitted)
        if self.missing == "error" and np.isnan(values).any():
            row = cells.index[int(np.isnan(values).argmax())]
            raise UserError(f"{where}, row {row}, column {cells.name}: the value is missing; {remedy}")
        return values

    def _one_hot(self, cells: pd.Series, values: list[str | None]) -> np.ndarray:
        """Return a one-hot encoding (N, values); print a warning for unseen categories."""
        names = to_names(cells, GIVEN)
        numbers = {value: number for number, value in enumerate(values)}
        index = np.array([numbers.get(name, -1) for name in names])
        unseen = names[index < 0]
        if len(unseen):
            distinct = list(dict.fromkeys("(missing)" if name is None else name for name in unseen))
            shown = listed(distinct)
            screen.say(
                f"warning: {len(unseen):,} of {len(names):,} rows have a {cells.name} not seen in training: {shown}",
                style="yellow",
            )
        return index[:, None] == np.arange(len(values))
