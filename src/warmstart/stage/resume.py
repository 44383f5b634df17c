"""`resume=PATH`: an interrupted or failed run continues in its folder with its own config, whatever its stage."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from warmstart.contracts import UserError
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import MANIFEST
from warmstart.screen import quoted
from warmstart.settings import STAGES

KEPT = ("stage", "experiment", "resume", "trust", "output_dir")  # what may stand beside resume=
INNER = ("baseline",)  # stages of a transfer's runs alone
REPORTED = ("transfer",)  # a done one is looked through for runs that failed


def run(path: str, trust: Sequence[str]) -> None:
    """Continue the run in this folder, or start it again where it has no checkpoint yet.

    Raises:
        UserError: it is no run, is done, is damaged, another process is at work on it, or other settings are given.
    """
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    others = [word for word in given if word.lstrip("+~").split("=")[0] not in KEPT]
    if others:
        raise UserError(f"resume= continues with the run's own config: leave out {' '.join(others)}")
    folder = Path(path)
    if (folder / MANIFEST).is_file() and not (folder / "run.json").exists():
        raise UserError(f"resume={path} is a sweep: python train.py -m sweep.resume={quoted(folder)}")
    found = RunFolder.open(folder)
    stage, status = found.record["stage"], found.record["status"]
    if status == "done" and stage not in REPORTED:
        raise UserError(f"resume={path}: the run is done, nothing is left to do")
    if stage not in (*STAGES, *INNER):
        raise UserError(f"resume={path} is a run of stage={stage}, which does not exist")
    config = found.config(tuple(trust))
    with found.recording():
        importlib.import_module(f"warmstart.stage.{stage}").run(config, found)
