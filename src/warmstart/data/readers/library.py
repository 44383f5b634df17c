"""Read data sets with the `datasets` library: hub names, folders with a dataset card, and saved data sets."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from warmstart.core.errors import UserError
from warmstart.core.reading import MOST_YAML, check_yaml, is_inside, is_plain, load_json, read
from warmstart.data.readers.records import from_arrow, to_class_names
from warmstart.data.readers.table import Dialect, read_table

OURS = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet"}  # read by `read_table`, which does not infer types
THEIRS = ("arrow", "imagefolder", "audiofolder")  # formats read by the library; some others run code


def read_by_library(root: str, config: str | None, option: str, dialect: Dialect | None) -> dict[str, pd.DataFrame]:
    """Read the splits of a data set with the `datasets` library.

    Raises:
        UserError: the data set does not exist, cannot be downloaded, has an unsupported format, or refers to files
            outside of it.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # its warnings quote untrusted cards
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    path = Path(root)
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            check_saved(path, f"{option}={root}")
            found = datasets.load_from_disk(root)
        else:
            for card in cards_of(root):
                check_card(card, f"{option}={root}")
            builder = datasets.load_dataset_builder(root, None if path.is_dir() else config)
            check_files(builder, path, f"{option}={root}")
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
        str(name): to_class_names(from_arrow(part.with_format("arrow")[:]), part.features)
        for name, part in splits
        if len(part)
    }


def check_card(path: Path, place: str) -> None:
    """Check that the card of a data set refers to files below it only.

    Raises:
        UserError: an entry is outside of it.
        ValueError: the card is too large, too deeply nested, or has too many aliases.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK  # the pattern that `datasets` uses

    text = read(path, MOST_YAML)
    if path.suffix == ".md":
        head = REGEX_YAML_BLOCK.search(text)
        text = head[2] if head else ""
    check_yaml(text)
    card = yaml.safe_load(text)
    configs = card.get("configs") if isinstance(card, dict) else None
    for entry in _paths(configs if isinstance(configs, list) else []):
        parts = re.split(r"[/\\]", entry)
        if parts[0] in ("", "~") or ".." in parts or re.search(r"::|://|^[A-Za-z]:", entry):
            raise UserError(
                f"{place}: its {path.name} names {entry}, which is not a path below it: change that, or give the table"
            )


def _paths(configs: list[Any]) -> Iterator[str]:
    """Yield the paths and patterns in the `configs` of a card."""
    for config in configs:
        files = [config.get("data_files"), config.get("data_dir")] if isinstance(config, dict) else []
        while files:
            entry = files.pop(0)
            if isinstance(entry, str):
                yield entry
            elif isinstance(entry, list):
                files = [*entry, *files]
            elif isinstance(entry, dict):
                files = [*(value for key, value in entry.items() if key != "split"), *files]


def cards_of(root: str) -> list[Path]:
    """Return the card files of a data set in a folder or on the hub, which list its data files."""
    if Path(root).is_dir():
        return [path for name in ("README.md", ".huggingface.yaml") if (path := Path(root) / name).is_file()]
    from huggingface_hub import hf_hub_download

    found = []
    for name in ("README.md", ".huggingface.yaml"):
        with contextlib.suppress(Exception):  # missing; other errors are raised when the data set is loaded
            found.append(Path(hf_hub_download(root, name, repo_type="dataset")))
    return found


def check_files(builder: Any, root: Path, place: str) -> None:
    """Check that the patterns and links of a data set lead to its own files only.

    Raises:
        UserError: a file is outside of it.
    """
    for files in (builder.config.data_files or {}).values():
        for file in files:
            is_own = is_inside(Path(file), root) if root.is_dir() else str(file).startswith("hf://datasets/")
            if not is_own:
                raise UserError(f"{place}: {file} is outside of it: put a copy of the file inside")


def check_saved(root: Path, place: str) -> None:
    """Check that a folder saved by `datasets` refers to files below it only.

    Raises:
        UserError: an entry is outside of it.
        ValueError, OSError, KeyError, TypeError: a file is damaged or missing.
    """
    folders = [root]
    if (root / "dataset_dict.json").is_file():
        splits = load_json(root / "dataset_dict.json")["splits"]
        for name in splits:
            if not is_plain(name) or not is_inside(root / name, root):
                raise UserError(
                    f"{place}: its dataset_dict.json names {name} among its splits, which is not a folder in it"
                )
        folders = [root / name for name in splits]
    for folder in folders:
        names = [file["filename"] for file in load_json(folder / "state.json")["_data_files"]]
        for name in names:
            if not is_plain(name) or not is_inside(folder / name, root):
                raise UserError(f"{place}: its state.json names {name}, which is not a file in the folder")


def _read_files(builder: Any, suffix: str, dialect: Dialect | None) -> dict[str, pd.DataFrame]:
    """Read the files of a builder by split; downloaded files have no extension."""
    import datasets

    files = {str(name): list(urls) for name, urls in builder.config.data_files.items()}
    local = datasets.DownloadManager().download_and_extract(files)
    frames = {
        name: concatenate([(Path(path), read_table(path, dialect, suffix)) for path in paths])
        for name, paths in local.items()
    }
    return {name: to_class_names(frame, builder.info.features or {}) for name, frame in frames.items()}


def concatenate(frames: list[tuple[Path, pd.DataFrame]]) -> pd.DataFrame:
    """Concatenate tables with the same columns; the rows of several tables are numbered from 1.

    Raises:
        UserError: the columns differ.
    """
    (first, kept), *others = frames
    for path, frame in others:
        if set(frame) != set(kept):
            differing = ", ".join(sorted(set(frame) ^ set(kept)))
            raise UserError(f"{path} and {first} differ in the columns {differing}: give both the same columns")
    if not others:
        return kept
    same_types = all(frame.dtypes[kept.columns].equals(kept.dtypes) for _, frame in others)
    joined = pd.concat([frame if same_types else frame.astype(object) for _, frame in frames], ignore_index=True)
    joined.index += 1
    return joined
