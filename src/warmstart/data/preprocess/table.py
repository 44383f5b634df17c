"""Tables: numbers are filled and scaled, categories become one column per value."""

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
from warmstart.data.duplicates.table import TableRows
from warmstart.data.readers.columns import to_names, to_numbers
from warmstart.data.readers.table import Dialect, read_table

if TYPE_CHECKING:
    from torch import Tensor

GIVEN = "the table"  # in messages about one that a trained model is given
SHOWN = 5  # categories that a warning names


class Preprocessor(protocols.Preprocessor):
    """Fitted by scikit-learn on the training rows; kept as plain numbers and names.

    Args:
        categorical: columns whose values are names; all others are numbers.
        missing: what stands in for an empty number: mean, median, or error to refuse it.
        columns: the fitted state, one record per column; a missing category is the value None.
        dialect: how the user's tables are written.
    """

    abilities: ClassVar = frozenset({"filled"})

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
        """The columns that a table must have."""
        return [column["name"] for column in self.columns]

    def fit(self, x: pd.DataFrame) -> None:
        """Learn fill values, means, standard deviations and category names, column by column."""
        categories, numbers = self.check(x)
        fitted: dict[str, dict[str, Any]] = {}
        for name, cells in categories.items():
            different = set(cells)
            fitted[name] = {"values": [*sorted(different - {None}), *({None} & different)]}
        if numbers:
            values = np.stack([*numbers.values()], axis=1)
            strategy = self.missing if self.missing != "error" else "mean"
            imputer = SimpleImputer(strategy=strategy, keep_empty_features=True).fit(values)
            scaler = StandardScaler().fit(imputer.transform(values))
            for name, *moments in zip(numbers, imputer.statistics_, scaler.mean_, scaler.scale_):
                fitted[name] = dict(zip(("fill", "mean", "std"), map(float, moments)))
        self.columns = [{"name": name, **fitted[name]} for name in map(str, x)]

    def check(self, x: pd.DataFrame, where: str = "table") -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the names and the numbers in each column (N,), by what the columns are.

        Args:
            x: a table.
            where: what the user calls it.

        Raises:
            UserError: a cell holds what it must not; its row and column are named.
        """
        categories = {str(name): to_names(x[name], where) for name in x if name in self.categorical}
        return categories, {str(name): self._numbers(x[name], where) for name in x if name not in self.categorical}

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return this preprocessor for tables that are written as those of another one."""
        return Preprocessor(self.categorical, self.missing, self.columns, own.dialect.state())

    def encode(self, x: pd.DataFrame) -> Tensor:
        """Return float32 (N, F); a category never seen in training is all zeros, and a warning counts and names it.

        Raises:
            UserError: a fitted column is not there, or holds what it must not.
        """
        absent = [name for name in self.names if name not in x]
        if absent:
            raise UserError(
                f"the table has no column {', '.join(absent)}, which the model was trained on; add it, or to "
                "predict without, data.missing_columns=fill"
            )
        parts = []
        for column in self.columns:
            cells = x[column["name"]]
            if "values" in column:
                parts.append(self._one_hot(cells, column["values"]).astype(np.float32))
            else:
                values = self._fitted_numbers(cells)
                filled = np.where(np.isnan(values), column["fill"], values)
                parts.append(((filled - column["mean"]) / column["std"])[:, None].astype(np.float32))
        import torch  # a table is checked before it is loaded

        return torch.from_numpy(np.concatenate(parts, axis=1))

    def __call__(self, x: Tensor) -> Tensor:
        """Unchanged: encoding has scaled everything."""
        return x

    def comparison(self) -> TableRows:
        """Return how rows of two parts are compared: by the fitted columns, if there are any yet."""
        return TableRows(self.categorical, None if self.columns is None else self.names)

    def read(self, path: str) -> Inputs:
        """Read a table that has the fitted columns; others are ignored."""
        frame = read_table(Path(path), self.dialect)
        return Inputs(frame, frame.index.tolist())

    def filled(self, x: pd.DataFrame) -> pd.DataFrame:
        """Return a table with the fitted columns that it lacks: numbers as fitted for missing ones, no category."""
        x = x.copy()
        for column in self.columns:
            name = column["name"]
            if name not in x:
                x[name] = column.get("fill")
                stand_in = "missing" if "values" in column else f"{column['fill']:g}"
                screen.say(f"warning: the table has no column {name}: every cell is {stand_in}", style="yellow")
        return x

    def state(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "kind": "table",
            "categorical": list(self.categorical),
            "missing": self.missing,
            "columns": self.columns,
            "dialect": self.dialect.state(),
        }

    def _numbers(self, cells: pd.Series, where: str = "table") -> np.ndarray:
        values = to_numbers(cells, where, "; name the column in data.categorical or data.ignore")
        if self.missing == "error" and np.isnan(values).any():
            row = cells.index[int(np.flatnonzero(np.isnan(values))[0])]
            raise UserError(
                f"{where}, row {row}, column {cells.name}: the value is missing; add data.missing=mean or median"
            )
        return values

    def _fitted_numbers(self, cells: pd.Series) -> np.ndarray:
        """Return numbers of a table for a trained model, whose settings no longer change."""
        values = to_numbers(cells, GIVEN, "; the model was trained on numbers in this column", is_fitted=True)
        if self.missing == "error" and np.isnan(values).any():
            row = cells.index[int(np.flatnonzero(np.isnan(values))[0])]
            raise UserError(
                f"{GIVEN}, row {row}, column {cells.name}: the value is missing; fill it in, or train with "
                "data.missing=mean or median"
            )
        return values

    def _one_hot(self, cells: pd.Series, values: list[str | None]) -> np.ndarray:
        """Return 1 where a cell has a value (N, values), and print what was not seen in training."""
        names = to_names(cells, GIVEN)
        numbers = {value: number for number, value in enumerate(values)}
        index = np.array([numbers.get(name, -1) for name in names])
        unseen = names[index < 0]
        if len(unseen):
            different = list(dict.fromkeys("(missing)" if name is None else name for name in unseen))
            shown = ", ".join(different[:SHOWN]) + (", ..." if len(different) > SHOWN else "")
            screen.say(
                f"warning: {len(unseen):,} of {len(names):,} rows have a {cells.name} not seen in training: {shown}",
                style="yellow",
            )
        return index[:, None] == np.arange(len(values))
