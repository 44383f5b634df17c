"""`resume=PATH`: resume an interrupted or failed run of any stage in its folder, with its own config."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from warmstart.config.schema import STAGES
from warmstart.core import screen
from warmstart.core.errors import Interrupted, UserError
from warmstart.core.screen import quoted
from warmstart.distributed import environment
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256, resolved
from warmstart.run.lineage import runs_of
from warmstart.run.manifest import MANIFEST

KEPT = ("resume", "trust", "output_dir")  # keys allowed together with resume=
INNER = ("baseline", "screen")  # stages only of runs of a transfer
REPEATABLE = ("transfer",)  # failed runs of a completed one are repeated


def find(config: DictConfig) -> Path | None:
    """Return the folder of the newest run of this prepared config; None if there is none."""
    digest, words = config_sha256(resolved(config)), own_words()
    for found in reversed(runs_of(Path(config.output_dir), config.stage, config.experiment)):
        if found.record.get("config_sha256") == digest or found.record.get("words", ()) == words:
            return found.path
    return None


def own_words() -> list[str]:
    """Return the overrides of this command line, without `resume`."""
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [word for word in words if not word.lstrip("+").startswith("resume=")]


def run(folder: Path, trust: Sequence[str], is_auto: bool = False) -> None:
    """Resume the run in this folder, or restart it if it has no checkpoint yet.

    Args:
        folder: of the run.
        trust: packages whose classes its config may instantiate.
        is_auto: whether it was found as the run of this command line; if it is done, nothing is left to do.

    Raises:
        UserError: it is not a run, is done, is damaged or locked, or other settings are given.
    """
    path = folder
    if (folder / MANIFEST).is_file() and not (folder / "run.json").exists():
        raise UserError(f"resume={path} is a sweep: python train.py -m sweep.resume={quoted(folder)}")
    found = RunFolder.open(folder)
    stage = found.record["stage"]
    if is_auto and found.record["status"] == "done":
        screen.say(f"{folder} is done: nothing is left to do")
        return
    if not is_auto:
        check_overrides(found)
    if stage not in (*STAGES, *INNER):
        raise UserError(f"resume={path} is a run of stage={stage}, which does not exist")
    refuse_done(found)
    if environment.number() > 0:  # the first process holds the run
        importlib.import_module(f"warmstart.stages.{stage}").run(found.config(tuple(trust)), found)
        return
    try:
        found.hold()
        refuse_done(found)  # another process may have completed it before the lock was acquired
        config = found.config(tuple(trust))
        with found.recording():
            importlib.import_module(f"warmstart.stages.{stage}").run(config, found)
    except KeyboardInterrupt as signal_:  # possibly before the run's context is entered
        raise signal_ if isinstance(signal_, Interrupted) else Interrupted(folder) from signal_
    finally:
        found.lock.release()


def check_overrides(run: RunFolder) -> None:
    """Raise an error for overrides other than those of the run.

    Raises:
        UserError: with the overrides.
    """
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    same = [f"{key}={run.record[key]}" for key in ("stage", "experiment")]
    others = [override for override in given if override.split("=")[0] not in KEPT and override not in same]
    if others:
        raise UserError(f"resume= uses the run's own config: remove {' '.join(others)}")


def refuse_done(run: RunFolder) -> None:
    """Raise an error if a run is done.

    Raises:
        UserError: the run is done, and its stage is not in REPEATABLE.
    """
    if run.record["status"] == "done" and run.record["stage"] not in REPEATABLE:
        raise UserError(f"resume={run.path}: the run is already done")
