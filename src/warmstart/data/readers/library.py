"""What the `datasets` library finds: hub names, folders with a card, and what it has saved itself."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart.contracts import UserError
from warmstart.data.readers.arrow import from_arrow, named
from warmstart.data.readers.table import Dialect, read_table

OURS = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet"}  # formats that our reader takes, as it guesses nothing
THEIRS = ("arrow", "imagefolder", "audiofolder")  # and those that the library does; some others run code


def read_by_library(root: str, config: str | None, option: str, dialect: Dialect | None) -> dict[str, pd.DataFrame]:
    """Read the splits of a data set that `datasets` knows, under the library's names for them.

    Raises:
        UserError: it is none, cannot be reached, or holds files of a format that is not read here.
    """
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    path = Path(root)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            found = datasets.load_from_disk(root)
        else:
            builder = datasets.load_dataset_builder(root, None if path.is_dir() else config)
            kind = type(builder).__module__.rpartition(".")[2]
            if kind in OURS:
                return _read_files(builder, OURS[kind], dialect)
            if kind not in THEIRS:
                texts = "; for texts, data=text_files, or data=text_folder with a folder per class"
                advice = "give a table or a folder of tables" + (texts if kind == "text" else "")
                raise UserError(f"{option}={root} holds {kind} files, which are not read as a table: {advice}")
            builder.download_and_prepare()
            found = builder.as_dataset()
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
        reason = " ".join(str(cause).split())[:200]
        advice = "give a table or a folder of tables" if path.is_dir() else "give a local copy's folder"
        raise UserError(f"{option}={root} cannot be loaded ({reason}); {advice}") from error
    splits = (found if isinstance(found, dict) else {"all": found}).items()
    return {
        str(name): named(from_arrow(part.with_format("arrow")[:]), part.features) for name, part in splits if len(part)
    }


def _read_files(builder: Any, suffix: str, dialect: Dialect | None) -> dict[str, pd.DataFrame]:
    """Read the files that a builder names, by split; downloaded ones have no suffix."""
    import datasets

    files = {str(name): list(urls) for name, urls in builder.config.data_files.items()}
    local = datasets.DownloadManager().download_and_extract(files)
    frames = {
        name: stacked([(Path(path), read_table(path, dialect, suffix)) for path in paths])
        for name, paths in local.items()
    }
    return {name: named(frame, builder.info.features or {}) for name, frame in frames.items()}


def stacked(frames: list[tuple[Path, pd.DataFrame]]) -> pd.DataFrame:
    """Return tables with the same columns as one, whose rows are numbered through where there are several.

    Raises:
        UserError: their columns differ.
    """
    (first, kept), *others = frames
    for path, frame in others:
        if set(frame) != set(kept):
            differing = ", ".join(sorted(set(frame) ^ set(kept)))
            raise UserError(f"{path} and {first} differ in the columns {differing}: give both the same columns")
    if not others:
        return kept
    alike = all(frame.dtypes[kept.columns].equals(kept.dtypes) for _, frame in others)
    joined = pd.concat([frame if alike else frame.astype(object) for _, frame in frames], ignore_index=True)
    joined.index += 1
    return joined
