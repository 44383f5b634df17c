"""Symbolic links in a folder that is written to."""

from __future__ import annotations

import os
from pathlib import Path

from warmstart.core.errors import UserError


def check_links(path: Path, below: bool = True) -> None:
    """Refuse a folder that holds links to elsewhere, which would be written through.

    Args:
        path: of the folder.
        below: check the folders in it too.

    Raises:
        UserError: names the link.
    """
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            if (link := Path(folder, name)).is_symlink():
                raise UserError(f"{link} is a symbolic link, and a run writes to its own folder only: remove it")
        if not below:
            return
