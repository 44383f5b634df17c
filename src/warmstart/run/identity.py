"""Who a run is: its id, its config's hash, the code and the machine it ran on."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import secrets
import subprocess
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError

OLDEST = (0, 2)  # version whose run folders are read


def new_id() -> str:
    """UTC time to the millisecond, so that names sort by age, and a random part, so that no two are the same."""
    now = datetime.now(timezone.utc)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(4)}"


def config_sha256(config: dict[str, Any]) -> str:
    """SHA-256 of a resolved config, whatever the order of its keys, but for that of transforms, which act in it."""
    return hashlib.sha256(json.dumps(_listed(config), sort_keys=True, default=str).encode()).hexdigest()


def _listed(node: Any) -> Any:
    """A config with the transforms of each `augment` as a list."""
    if not isinstance(node, dict):
        return node
    return {
        key: list(value.items()) if key == "augment" and isinstance(value, dict) else _listed(value)
        for key, value in node.items()
    }


def derive_seed(root: int, name: str) -> int:
    """An independent seed per use (subset, backbone, head, order, noise) from one root seed."""
    return int.from_bytes(hashlib.sha256(f"{root}/{name}".encode()).digest()[:4], "big")


@functools.cache
def git_state() -> dict[str, Any]:
    """Commit of the checkout that holds the code, and whether it has uncommitted changes; None outside a checkout."""

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status) if status is not None else None}


def check_version(version: Any, place: Path) -> None:
    """Refuse what a version of warmstart wrote whose modules had other names than this one's.

    Args:
        version: of warmstart, as recorded; what is no version is left to whoever reads it.
        place: what it is recorded of.

    Raises:
        UserError: names the version.
    """
    found = re.match(r"(\d+)\.(\d+)\b", version) if isinstance(version, str) else None
    if found and tuple(map(int, found.groups())) < OLDEST:
        here = metadata.version("warmstart")
        raise UserError(f"{place} was made by warmstart {version}, which {here} cannot read: make it again")


@functools.cache
def environment() -> dict[str, str]:
    """Python, platform and the versions of the packages that shape a result."""
    packages = ("warmstart", "torch", "pytorch-lightning", "hydra-core", "scikit-learn", "numpy", "torchmetrics")
    versions = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}
