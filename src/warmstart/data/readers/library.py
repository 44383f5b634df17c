"""What the `datasets` library finds: hub names, folders with a card, and what it has saved itself."""

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
from warmstart.data.readers.arrow import from_arrow, named
from warmstart.data.readers.table import Dialect, read_table

OURS = {"csv": ".csv", "json": ".jsonl", "parquet": ".parquet"}  # formats that our reader takes, as it guesses nothing
THEIRS = ("arrow", "imagefolder", "audiofolder")  # and those that the library does; some others run code


def read_by_library(root: str, config: str | None, option: str, dialect: Dialect | None) -> dict[str, pd.DataFrame]:
    """Read the splits of a data set that `datasets` knows, under the library's names for them.

    Raises:
        UserError: it is none, cannot be reached, holds files of a format that is not read here, or names files that
            are not its own.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()  # its warnings quote cards as they are
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
        str(name): named(from_arrow(part.with_format("arrow")[:]), part.features) for name, part in splits if len(part)
    }


def check_card(path: Path, place: str) -> None:
    """Refuse a data set whose card names files that are not below it.

    Raises:
        UserError: names the entry.
        ValueError: the card is too large, too deep, or its aliases stand for too much.
    """
    from huggingface_hub.repocard import REGEX_YAML_BLOCK  # which finds what `datasets` reads

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
                f"{place}: its {path.name} names {entry}, which is no path below it: change that, or give the table"
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
    """Return the files that say which files a data set in a folder, or on the hub, is made of."""
    if Path(root).is_dir():
        return [path for name in ("README.md", ".huggingface.yaml") if (path := Path(root) / name).is_file()]
    from huggingface_hub import hf_hub_download

    found = []
    for name in ("README.md", ".huggingface.yaml"):
        with contextlib.suppress(Exception):  # there is none; what else is wrong comes up when the data set is loaded
            found.append(Path(hf_hub_download(root, name, repo_type="dataset")))
    return found


def check_files(builder: Any, root: Path, place: str) -> None:
    """Refuse a data set whose patterns or links lead to files that are not its own.

    Raises:
        UserError: names the file.
    """
    for files in (builder.config.data_files or {}).values():
        for file in files:
            is_own = is_inside(Path(file), root) if root.is_dir() else str(file).startswith("hf://datasets/")
            if not is_own:
                raise UserError(f"{place}: {file} leads out of it: put a copy of the file there")


def check_saved(root: Path, place: str) -> None:
    """Refuse a folder that `datasets` has saved, by its files, where these name others that are not below it.

    Raises:
        UserError: names the entry.
        ValueError, OSError, KeyError, TypeError: a file is damaged or missing.
    """
    folders = [root]
    if (root / "dataset_dict.json").is_file():
        splits = load_json(root / "dataset_dict.json")["splits"]
        for name in splits:
            if not is_plain(name) or not is_inside(root / name, root):
                raise UserError(
                    f"{place}: its dataset_dict.json names {name} among its splits, which is no folder in it"
                )
        folders = [root / name for name in splits]
    for folder in folders:
        names = [file["filename"] for file in load_json(folder / "state.json")["_data_files"]]
        for name in names:
            if not is_plain(name) or not is_inside(folder / name, root):
                raise UserError(f"{place}: its state.json names {name}, which is no file of the folder")


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
