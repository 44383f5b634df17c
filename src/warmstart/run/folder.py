"""A run's folder: made exclusively, its record rewritten atomically, its status always true."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.contracts import Pruned, UserError
from warmstart.run import cores
from warmstart.run.files import write_atomically
from warmstart.run.identity import config_sha256, environment, git_state, new_id

# What a saved config may name, by the group it stands in.
TRUSTED = {
    **{group: (f"warmstart.{group}.",) for group in ("data", "backbone", "objective", "loss", "strategy", "average")},
    "scheduler": ("warmstart.trainer.schedule.",),
    "optimizer": ("torch.optim.", "warmstart.trainer.muon."),
    "trainer": ("pytorch_lightning.Trainer",),
}


class RunFolder:
    """One run on disk: run.json, config.yaml, train.log, checkpoints/ and model/."""

    def __init__(self, path: Path, record: dict[str, Any]):
        self.path = path
        self.record = record
        self.is_recording = False

    @classmethod
    def create(cls, config: DictConfig, parent: Path, name: str | None = None) -> RunFolder:
        """Make a new folder under `parent`; its name is the run's id unless one is given.

        Raises:
            UserError: the folder exists already or cannot be written.
        """
        run_id = new_id()
        resolved = OmegaConf.to_container(config, resolve=True)
        path = parent / (name or run_id)
        record = {
            "id": run_id,
            "stage": config.stage,
            "experiment": config.experiment,
            "status": "running",
            "seed": config.get("seed"),
            "config_sha256": config_sha256(resolved),
            "parent": None,
            "git": git_state(),
            "environment": environment(),
            "threads": cores.in_use(),
            "data": None,
            "metrics": {},
            "transfer": None,
            "cost": None,
            "error": None,
        }
        run = cls(path, record)
        try:
            path.mkdir(parents=True, exist_ok=False)
            write_atomically(path / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
            run.update()
        except FileExistsError as error:
            raise UserError(f"{path} is taken: remove it, or give another output_dir=") from error
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; give a writable output_dir=") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Read an existing run folder.

        Raises:
            UserError: there is no run.json, or it cannot be read.
        """
        if not path.is_dir():
            raise UserError(f"{path}: there is no such folder")
        try:
            record = json.loads((path / "run.json").read_text())
            run = cls(path, {"id": record["id"], "stage": record["stage"], "status": record["status"], **record})
            wrong = [name for name in ("metrics", "cost", "sweep") if not isinstance(record.get(name) or {}, dict)]
            if wrong:
                raise ValueError(f"{wrong[0]} is no mapping")
            return run
        except FileNotFoundError as error:
            raise UserError(f"{path} is not a run folder: it has no run.json") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / 'run.json'} is damaged: {error}") from error

    def note(self, **fields: Any) -> None:
        """Change fields of the record, for the next `update` to write; a number that is not finite is refused."""
        record = {**self.record, **fields}
        json.dumps(record, allow_nan=False)
        self.record = record

    def update(self, **fields: Any) -> None:
        """Change fields of run.json and rewrite it; a number that is not finite is refused and changes nothing."""
        self.note(**fields)
        write_atomically(self.path / "run.json", json.dumps(self.record, indent=2) + "\n")

    def config(self, trust: tuple[str, ...] = ()) -> DictConfig:
        """The run's own resolved config, refused where it names code that is not a part of its group.

        Raises:
            UserError: the file is missing, damaged, or names a class of a package that is not trusted.
        """
        path = self.path / "config.yaml"
        try:
            config = OmegaConf.load(path)
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing") from error
        except Exception as error:
            raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
        if not isinstance(config, DictConfig) or "stage" not in config:
            raise UserError(f"{path} is damaged: it is not the config of a run")
        check_targets(OmegaConf.to_container(config), path, trust)
        OmegaConf.set_struct(config, True)
        return config

    @contextlib.contextmanager
    def recording(self) -> Iterator[RunFolder]:
        """Keep status and log true while the block runs: done, failed with its traceback, pruned or interrupted.

        Inside another `recording` of the same run the outer one does all that.
        """
        if self.is_recording:
            yield self
            return
        self.is_recording = True
        handler = logging.FileHandler(self.path / "train.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger()
        previous_level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        try:
            yield self
            self.update(status="done")
        except KeyboardInterrupt:
            self.update(status="interrupted", error="interrupted by the user")
            raise
        except Pruned as reason:
            self.update(status="pruned", error=str(reason))
            raise
        except BaseException as error:
            logger.error(traceback.format_exc())
            self.update(status="failed", error=f"{type(error).__name__}: {error}")
            raise
        finally:
            self.is_recording = False
            logger.removeHandler(handler)
            logger.setLevel(previous_level)
            handler.close()


def check_targets(config: dict[str, Any], place: Path, trust: tuple[str, ...] = ()) -> None:
    """Refuse a config that was read from `place` and names code that is not a part of its group.

    Raises:
        UserError: names the code, and how to trust it.
    """
    for group, target in _targets(config):
        if "${" in target:
            raise UserError(f"{place} holds {target}, but a saved config has no interpolations: it was changed")
        if not _trusted(group, target, trust):
            raise UserError(
                f"{place} names {target}, which is not a part of warmstart; "
                f"if that code is yours, add trust=[{target.split('.')[0]}]"
            )


def _targets(node: Any, group: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield group, str(node["_target_"])
        for key, value in node.items():
            yield from _targets(value, key if key in TRUSTED else group)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, group)
    elif isinstance(node, str) and "${" in node:
        yield group, node


def _trusted(group: str, target: str, trust: tuple[str, ...]) -> bool:
    """Whether a target is defined in its group's package: not merely reachable through it, as an import would be."""
    if target.startswith(tuple(f"{name}." for name in trust)):
        return True
    if group not in TRUSTED or not target.startswith(TRUSTED[group]):
        return False
    module, _, name = target.rpartition(".")
    try:
        home = getattr(importlib.import_module(module), name).__module__
    except (ImportError, AttributeError):
        return False
    return home.startswith(tuple(place.rpartition(".")[0] for place in TRUSTED[group]))
