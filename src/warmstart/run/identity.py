"""Identifiers of a run: its id, the hash of its config, its seeds, its code version and its environment."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import secrets
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.core.errors import UserError
from warmstart.core.trust import FOR_HUB

OLDEST = (0, 2)  # oldest version whose run folders can be read


def new_id() -> str:
    """Return a unique id: the UTC time in milliseconds, so that ids sort by age, and a random suffix."""
    now = datetime.now(UTC)
    return f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(4)}"


def resolved(config: DictConfig) -> dict[str, Any]:
    """Return the config of a run as plain containers without interpolations, except `${for_hub:...}` of a transfer.

    Each arm of a transfer resolves them for its own backbone.
    """
    return resolved_for_arms(config) if "arm" in config else OmegaConf.to_container(config, resolve=True)


def resolved_for_arms(config: DictConfig) -> dict[str, Any]:
    """Return settings of a transfer as plain containers without interpolations other than `${for_hub:...}`."""
    return _with_hub_rates(OmegaConf.to_container(config), OmegaConf.to_container(config, resolve=True))


def _with_hub_rates(raw: Any, plain: Any) -> Any:
    """Return resolved settings with the `${for_hub:...}` of the unresolved ones."""
    if isinstance(raw, dict):
        return {key: _with_hub_rates(raw[key], value) for key, value in plain.items()}
    return raw if isinstance(raw, str) and FOR_HUB.fullmatch(raw) else plain


def config_sha256(config: dict[str, Any]) -> str:
    """Return the SHA-256 of a resolved config, independent of the order of keys, except of the transforms."""
    return hashlib.sha256(json.dumps(_listed(config), sort_keys=True, default=str).encode()).hexdigest()


def _listed(node: Any) -> Any:
    """Return a config with the transforms of each `augment` as a list, which keeps their order."""
    if not isinstance(node, dict):
        return node
    return {
        key: list(value.items()) if key == "augment" and isinstance(value, dict) else _listed(value)
        for key, value in node.items()
    }


def derive_seed(root: int, name: str) -> int:
    """Derive an independent seed per use (subset, backbone, head, order, noise) from one root seed."""
    return int.from_bytes(hashlib.sha256(f"{root}/{name}".encode()).digest()[:4], "big")


@functools.cache
def git_state() -> dict[str, Any]:
    """Return the commit of the code and whether it has uncommitted changes; values are None outside a checkout."""

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(status) if status is not None else None}


def check_version(version: Any, path: Path) -> None:
    """Check that a folder was written by a version of warmstart with the module names of this one.

    Raises:
        UserError: the version is too old; the message names it.
    """
    found = re.match(r"(\d+)\.(\d+)\b", version) if isinstance(version, str) else None
    if found and tuple(map(int, found.groups())) < OLDEST:
        here = metadata.version("warmstart")
        raise UserError(f"{path} was written by warmstart {version}, which {here} cannot read: create it again")


@functools.cache
def environment() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, and the platform."""
    packages = ("warmstart", "torch", "pytorch-lightning", "hydra-core", "scikit-learn", "numpy", "torchmetrics")
    versions = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version(), "platform": platform.platform(), **versions}
