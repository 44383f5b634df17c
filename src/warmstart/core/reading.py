"""Read untrusted files: JSON and YAML of limited size, and names and paths that cannot leave a folder."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart.core.screen import UNSAFE

DEPTH = 50  # of nested lists and mappings
MOST_JSON, MOST_YAML = 2**28, 2**22  # bytes of a file
MOST_ALIASED = 10_000  # values that all aliases of a YAML file may expand to
DIGITS = 300  # of an integer, so that it can be converted to a float
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# The files of a tokenizer that are saved with a model and exported with it.
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("*vocab*.json", "vocab*.txt", "merges.txt", "bpe.codes", "chat_template.*", "*.model"),
)


def load_json(path: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Return the content of a JSON file.

    Args:
        path: of the file.
        hook: `object_hook` of `json.loads`.

    Raises:
        OSError: it is missing or unreadable.
        ValueError: it is not JSON, too large or too deep, or contains a number or text that cannot be stored.
    """
    return parse_json(read(path, MOST_JSON), hook)


def parse_json(text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Return the value of a JSON text; raise ValueError as `load_json`."""
    try:
        found = json.loads(text, parse_int=_whole, parse_float=_finite, object_hook=hook)
        check_depth(found)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text contains an unpaired surrogate, half of a character") from error
    return found


def check_depth(found: Any) -> None:
    """Raise RecursionError if lists and mappings are nested more deeply than recursive code supports."""
    level = [found]
    for _ in range(DEPTH):
        level = [child for node in level for child in _children(node) if isinstance(child, (dict, list))]
    if level:
        raise RecursionError(f"nested more than {DEPTH} deep")


def load_config(path: Path) -> DictConfig | ListConfig:
    """Return a YAML file as OmegaConf reads it.

    Raises:
        OSError: it is missing or unreadable.
        ValueError: it is too large, too deep, or its aliases expand to too many values.
        Exception: it is not YAML, as `OmegaConf.load`.
    """
    text = read(path, MOST_YAML)
    check_yaml(text)
    return OmegaConf.load(io.StringIO(text))


def check_yaml(text: str) -> None:
    """Raise ValueError if a YAML text is nested too deeply or its aliases expand to too many values."""
    known: dict[str, tuple[int, int]] = {}  # number of values and depth, by anchor
    open_nodes: list[tuple[str | None, int, int]] = [(None, 0, 0)]
    aliased = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 0, 0))
            size, depth = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size, depth = open_nodes.pop()
            size, depth = size + 1, depth + 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in known:
                raise ValueError(
                    f"the alias *{event.anchor} refers to no anchor before it, or to a node that contains it"
                )
            anchor, (size, depth) = None, known[event.anchor]
            aliased += size
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size, depth = event.anchor, 1, 0
        else:
            continue
        _check_size(len(open_nodes) + depth - 1, aliased)
        if isinstance(event, yaml.CollectionStartEvent):
            continue
        if anchor is not None:
            known[anchor] = size, depth
        name, sizes, depths = open_nodes[-1]
        open_nodes[-1] = name, sizes + size, max(depths, depth)


def _check_size(depth: int, aliased: int) -> None:
    if depth > DEPTH:
        raise ValueError(f"it is nested more than {DEPTH} deep")
    if aliased > MOST_ALIASED:
        raise ValueError(f"its aliases expand to more than {MOST_ALIASED:,} values")


def read(path: Path, most: int) -> str:
    """Return the content of a UTF-8 file of at most `most` bytes.

    Raises:
        OSError: it is missing or unreadable.
        ValueError: it is larger, not a regular file, or not UTF-8.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with open(path, "rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    return content.decode()


def check_name(what: str, name: Any, folders: bool = False) -> None:
    """Raise ValueError if a name, as a component of a path, would leave its folder or cannot be printed.

    Args:
        what: what it names, for the message.
        name: the name.
        folders: whether it may be several names with slashes between them.
    """
    parts = name.split("/") if isinstance(name, str) and folders else [name]
    if not all(is_plain(part) for part in parts):
        raise ValueError(f"its {what} is {name!r}, which is not a valid name")


def is_plain(name: Any) -> bool:
    """Return whether this is a valid file name: no path, and no character that a terminal would interpret."""
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not re.search(r"[/\\\n\t]", name) and not UNSAFE.search(name)


def is_inside(path: Path, root: Path) -> bool:
    """Return whether a path, with links resolved, is below a folder or, in a Hugging Face cache, among its blobs."""
    real, home = Path(os.path.realpath(path)), Path(os.path.abspath(root))
    if real.is_relative_to(os.path.realpath(root)):
        return True
    cache = next((folder.parents[1] for folder in (home, *home.parents) if folder.parent.name == "snapshots"), None)
    return cache is not None and real.is_relative_to(Path(os.path.realpath(cache), "blobs"))


def _children(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits is too large")
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
