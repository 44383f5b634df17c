"""`resume=PATH`: an interrupted or failed run continues in its folder with its own config, whatever its stage."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from warmstart.config.schema import STAGES
from warmstart.core.errors import Interrupted, UserError
from warmstart.core.screen import quoted
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import MANIFEST

KEPT = ("resume", "trust", "output_dir")  # what may stand beside resume=
INNER = ("baseline",)  # stages of a transfer's runs alone
REPORTED = ("transfer",)  # a done one is looked through for runs that failed


def run(path: str, trust: Sequence[str]) -> None:
    """Continue the run in this folder, or start it again where it has no checkpoint yet.

    Raises:
        UserError: it is no run, is done, is damaged, another process is at work on it, or other settings are given.
    """
    folder = Path(path)
    if (folder / MANIFEST).is_file() and not (folder / "run.json").exists():
        raise UserError(f"resume={path} is a sweep: python train.py -m sweep.resume={quoted(folder)}")
    found = RunFolder.open(folder)
    stage = found.record["stage"]
    check_words(found)
    if stage not in (*STAGES, *INNER):
        raise UserError(f"resume={path} is a run of stage={stage}, which does not exist")
    refuse_done(found)
    try:
        found.hold()
        refuse_done(found)  # a process that had the lock until now may have completed it
        config = found.config(tuple(trust))
        with found.recording():
            importlib.import_module(f"warmstart.stages.{stage}").run(config, found)
    except KeyboardInterrupt as signal_:  # perhaps before the run's record is kept
        raise signal_ if isinstance(signal_, Interrupted) else Interrupted(folder) from signal_
    finally:
        found.lock.release()


def check_words(run: RunFolder) -> None:
    """Refuse a command line that asks for anything else than the run with its own config.

    Raises:
        UserError: names the words.
    """
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    same = [f"{key}={run.record[key]}" for key in ("stage", "experiment")]
    others = [word for word in given if word.split("=")[0] not in KEPT and word not in same]
    if others:
        raise UserError(f"resume= continues with the run's own config: leave out {' '.join(others)}")


def refuse_done(run: RunFolder) -> None:
    """Refuse a run that is done.

    Raises:
        UserError: it is, and is none whose parts are looked through.
    """
    if run.record["status"] == "done" and run.record["stage"] not in REPORTED:
        raise UserError(f"resume={run.path}: the run is done, nothing is left to do")
