"""Find the data files below a folder, and report those that are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.readers.files import listed, suffix_of

SYSTEM = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir"})  # files of operating systems, besides dot files
IMAGES = (
    "png jpg jpeg jpe jfif webp bmp gif tif tiff heic heif avif jxl jp2 j2k svg psd raw cr2 cr3 nef arw dng orf rw2 "
    "ico tga pcx pbm pgm ppm pnm exr hdr eps dcm nii"
)
SOUNDS = "wav wave flac ogg oga mp3 opus aiff aif aifc au caf w64 m4a aac wma amr ape ac3 mka mid"
OTHERS = (
    "mp4 m4v mov avi mkv webm mpg mpeg wmv 3gp npy npz mat h5 hdf5 tfrecord parquet zip tar gz tgz bz2 xz zst 7z rar"
)
TEXTS = "txt text md rst html htm xml tex pdf doc docx odt rtf epub csv tsv json jsonl"
MEDIA = frozenset(f".{ending}" for group in (IMAGES, SOUNDS, OTHERS) for ending in group.split())
TEXT_FILES = frozenset({".txt", ".text"})
DOCUMENTS = MEDIA | {f".{ending}" for ending in TEXTS.split()}


class FolderFiles:
    """Follows links to files, and links to folders below the root.

    Args:
        suffixes: extensions of files to read, in lower case.
        unread: extensions of data files that are counted as skipped, unless they are in `suffixes`.
    """

    def __init__(self, root: Path, suffixes: frozenset[str], unread: frozenset[str] = MEDIA):
        self.root, self.suffixes, self.unread = root, suffixes, unread - suffixes
        self.real = Path(os.path.realpath(root))
        self.skipped: dict[str, dict[Path, None]] = {}

    def below(self, folder: Path) -> list[Path]:
        """Return the files to read below a folder, recursively, sorted."""
        return sorted(self._walk(folder, self._ancestors(folder), set()))

    def any_below(self, folder: Path) -> bool:
        """Return whether there is a file to read below a folder."""
        return next(self._walk(folder, self._ancestors(folder), set()), None) is not None

    def directly_in(self, folder: Path) -> list[Path]:
        """Return the files to read in a folder, not recursively, sorted; skipped files are counted."""
        return [path for path in self._entries(folder) if self._is_read(path)]

    def folders(self, folder: Path) -> list[Path]:
        """Return the folders in a folder, sorted; links to outside of the root are counted as skipped."""
        above = self._ancestors(folder)
        return [path for path in self._entries(folder) if path.is_dir() and self._is_inside(path, above)]

    def skip(self, why: str, paths: Iterable[Path]) -> None:
        """Count paths as skipped; `why` completes the message `skipped 3 ...`."""
        self.skipped.setdefault(why, {}).update(dict.fromkeys(paths))

    def report(self) -> None:
        """Print a warning per reason with the number of skipped paths."""
        for why, paths in self.skipped.items():
            if paths:
                names = listed([self._name(path) for path in sorted(paths)])
                screen.say(f"warning: {self.root}: skipped {len(paths):,} {why}: {names}", style="yellow")

    def _ancestors(self, folder: Path) -> set[str]:
        """Return the real paths of a folder and of its parents up to the root."""
        chain = [folder, *folder.parents]
        return {
            os.path.realpath(path) for path in (chain[: chain.index(self.root) + 1] if self.root in chain else [folder])
        }

    def _walk(self, folder: Path, above: set[str], seen: set[str]) -> Iterator[Path]:
        """Yield the files to read; folders with several links are visited once."""
        real = os.path.realpath(folder)
        if real in seen:
            return
        seen.add(real)
        for path in self._entries(folder):
            if self._is_read(path):
                yield path
            elif path.is_dir() and self._is_inside(path, above | {real}):
                yield from self._walk(path, above | {real}, seen)

    def _entries(self, folder: Path) -> list[Path]:
        try:
            found = sorted(folder.iterdir())
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}") from error
        return [path for path in found if is_shown(path)]

    def _is_read(self, path: Path) -> bool:
        kind = suffix_of(path)
        if kind in self.suffixes and path.is_file():
            return True
        if path.is_symlink() and not path.exists():
            self.skip("broken links", [path])
        elif kind in self.suffixes | self.unread and not path.is_dir():
            self.skip("files that cannot be read here", [path])
        return False

    def _is_inside(self, path: Path, above: set[str]) -> bool:
        if not path.is_symlink():
            return True
        real = os.path.realpath(path)
        if not Path(real).is_relative_to(self.real):
            self.skip(f"links to folders outside of {self.root}", [path])
        elif real in above:
            self.skip("links to a parent folder", [path])
        else:
            return True
        return False

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def is_shown(path: Path) -> bool:
    """Return whether a path is neither hidden nor a file of an operating system."""
    return not path.name.startswith(".") and path.name.lower() not in SYSTEM


def files_below(folder: Path, suffixes: frozenset[str], unread: frozenset[str] = MEDIA) -> list[Path]:
    """Return the files with these extensions below a folder, sorted; print a warning about skipped files."""
    files = FolderFiles(folder, suffixes, unread)
    found = files.below(folder)
    files.report()
    return found
