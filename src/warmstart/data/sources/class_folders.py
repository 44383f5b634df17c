"""Find files in one folder per class, or in such folders for the splits train, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.readers.files import NAMED, listed
from warmstart.data.readers.folders import FolderFiles
from warmstart.data.readers.splits import SHIFT, split_named
from warmstart.data.sources.own_splits import HELD_OUT, note_splits, to_splits

LAYOUT = "ROOT/CLASS/FILE, or ROOT/train/CLASS/FILE and the same classes in ROOT/validation and ROOT/test"


class ClassFolders(NamedTuple):
    """Files, their class indices (N,), the names of their splits (N,), all train without splits, and class names."""

    files: list[Path]
    y: np.ndarray
    split: np.ndarray
    labels: tuple[str, ...]


def find_classes(listing: FolderFiles, what: str, table: str | None = None) -> ClassFolders:
    """Return the files of `data.root` with their classes and splits; print the splits and skipped files.

    Args:
        what: name of the files in messages, in the plural.
        table: option that reads a table instead.

    Raises:
        UserError: the folder is missing or has another layout, or classes are missing.
    """
    root = listing.root
    if not root.is_dir():
        other = f"this is a file: for a table, {table}" if table else "this is a file, not a folder"
        raise UserError(f"data.root={root}: {other if root.is_file() else 'there is no such folder'}")
    own = _split_folders(listing, what)
    if own is None:
        groups = {"train": _classes_in(listing, root, what)}
        _check_layout(groups["train"], root, what, listing)
    else:
        groups = {name: _classes_in(listing, folder, what) for name, folder in own.items()}
        for name, found in groups.items():
            if not found:
                raise UserError(
                    f"data.root={root}: {own[name].name} has no folder of {what} per class; expected {LAYOUT}"
                )
    listing.report()
    labels = tuple(sorted(groups["train"]))
    if len(labels) < 2:
        found = f"only {labels[0]}" if labels else "none"
        raise UserError(f"data.root={root} needs a folder of {what} per class, two or more; found {found}{_hint(root)}")
    _check_held_out(groups, labels, root)
    rows = [
        (path, number, name)
        for name, classes in groups.items()
        for number, label in enumerate(labels)
        for path in classes.get(label, ())
    ]
    files, y, split = zip(*rows)
    if own is not None:
        note_splits({name: split.count(name) for name in groups})
    return ClassFolders(list(files), np.array(y), np.array(split), labels)


def split(found: ClassFolders, root: Path, seed: int) -> Splits:
    """Return the splits with row indices `x` and class indices `y`; missing splits are taken from train.

    Raises:
        UserError: a class has too few files.
    """
    rows = Rows(np.arange(len(found.y)), found.y)
    given = sorted(set(found.split))
    return to_splits(rows, found.labels, found.split, given, str(root), seed, lambda index: found.y[index])


def _split_folders(listing: FolderFiles, what: str) -> dict[str, Path] | None:
    """Return the folder of each split; None if the folders are classes.

    They are splits if all have names of splits, or if train and another one have, and contain folders of files.
    """
    root, probe = listing.root, FolderFiles(listing.root, listing.suffixes)
    folders = [folder for folder in listing.folders(root) if probe.any_below(folder)]
    named: dict[str, list[Path]] = {}
    for folder in folders:
        if (name := split_named(folder.name)) is not None:
            named.setdefault(name, []).append(folder)
    others = [folder for folder in folders if split_named(folder.name) is None]
    if not named:
        return None
    has_classes = any(
        probe.any_below(inner) for group in named.values() for one in group for inner in listing.folders(one)
    )
    if others and not ("train" in named and len(named) > 1 and has_classes):
        names = ", ".join(folder.name for group in named.values() for folder in group)
        beside = ", ".join(folder.name for folder in others[:NAMED])
        screen.say(f"warning: data.root={root}: {names} is read as a class, like {beside}", style="yellow")
        return None
    _check_one_folder_each(root, named)
    if not has_classes:
        names = ", ".join(folder.name for folder in folders)
        raise UserError(f"data.root={root}: the splits {names} have {what} but no folder per class; expected {LAYOUT}")
    listing.skip("folders that are not splits", others)
    listing.skip("files next to the split folders", listing.directly_in(root))
    if len(named) > 1 and "train" not in named:
        raise UserError(f"data.root={root} has no split train: it has {', '.join(named)}")
    found = {name: group[0] for name, group in named.items()}
    if len(found) == 1:
        ((name, folder),) = found.items()
        if name != "train":
            screen.say(f"data.root={root}: {folder.name} is the only split; it is used as train")
        return {"train": folder}
    order = ("train", *HELD_OUT, *sorted(name for name in found if name.startswith(SHIFT)))
    return {name: found[name] for name in order if name in found}


def _check_one_folder_each(root: Path, named: dict[str, list[Path]]) -> None:
    for name, group in named.items():
        if len(group) > 1:
            both = ", ".join(folder.name for folder in group)
            raise UserError(f"data.root={root} has two folders for the split {name}: {both}. Keep one of them")


def _classes_in(listing: FolderFiles, parent: Path, what: str) -> dict[str, list[Path]]:
    """Return the files of each class, by the name of its folder."""
    groups, empty = {}, []
    for folder in listing.folders(parent):
        try:
            folder.name.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{parent}: the folder {folder.name!r} has a name that is not UTF-8: rename it") from error
        if files := listing.below(folder):
            groups[folder.name] = files
        else:
            empty.append(folder)
    listing.skip(f"folders without {what} that can be read", empty)
    listing.skip("files next to the class folders", listing.directly_in(parent))
    return groups


def _check_layout(groups: dict[str, list[Path]], root: Path, what: str, listing: FolderFiles) -> None:
    """Raise UserError if there are splits below classes."""
    for label in groups:
        inner = [folder.name for folder in listing.folders(root / label)]
        if len({split_named(name) for name in inner} - {None}) > 1:
            raise UserError(
                f"data.root={root}: {label} has the splits {', '.join(inner)}, but splits must be above classes: "
                f"expected {LAYOUT}"
            )


def _check_held_out(groups: dict[str, dict[str, list[Path]]], labels: tuple[str, ...], root: Path) -> None:
    for name, classes in groups.items():
        if foreign := sorted(set(classes) - set(labels)):
            known = listed(labels)
            raise UserError(
                f"data.root={root}, split {name}: class {', '.join(foreign[:NAMED])} is not in the split train, which "
                f"has {known}"
            )
        if missing := sorted(set(labels) - set(classes)):
            screen.say(f"warning: the split {name} has no class {', '.join(missing[:NAMED])}", style="yellow")


def _hint(root: Path) -> str:
    """Return a hint if the class folders are one level deeper."""
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    inner = [path for path in folders[0].iterdir() if path.is_dir()] if len(folders) == 1 else []
    return f"; try data.root={folders[0]}" if len(inner) > 1 else ""
