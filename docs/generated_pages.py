"""Writing of the pages that the extensions of this site generate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_pages(folder: Path, pages: Mapping[str, str], title: str, text: str) -> None:
    """Write the pages that have changed and an index with title, text and links; remove other pages of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = "\n".join(pages)
    index = f"# {title}\n\n{text}\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```\n"
    texts = {f"{name}.md": content for name, content in {**pages, "index": index}.items()}
    for old in folder.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, content in texts.items():
        path = folder / name  # Sphinx builds a page again if its file is newer
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
