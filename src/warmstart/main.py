"""Compose the config, check it, and call the stage. Nothing here imports torch."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.expand import CONF, check_names, expand
from warmstart.config.pipeline import prepare
from warmstart.config.validate import check_root, explain
from warmstart.core import screen
from warmstart.core.errors import Unmet, UserError
from warmstart.run import cores
from warmstart.run.files import as_write_error
from warmstart.run.identity import new_id

NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")  # of torch's errors
USER_MISTAKE, FAILED, UNMET, INTERRUPTED = 2, 1, 4, 130

OmegaConf.register_new_resolver("new_id", new_id, use_cache=True, replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _job(config: DictConfig) -> None:
    typed = any(word.startswith("experiment=") for word in HydraConfig.get().overrides.task)
    status = run(config, typed)
    if HydraConfig.get().mode == hydra.types.RunMode.RUN and status:
        sys.exit(status)


def main() -> None:
    """Run the command line.

    Leave with 1 for a bug, 2 for a user's mistake, 3 where jobs failed, 4 where a required verdict is another, 130 for
    Ctrl-C.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors to us instead of printing and leaving with 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger().addHandler(logging.NullHandler())  # records go to a run's log, not to the screen
    try:
        sys.argv[1:] = expand(sys.argv[1:])
        check_names(sys.argv[1:])
    except UserError as error:
        screen.error(str(error))
        sys.exit(USER_MISTAKE)
    try:
        _job()
    except (HydraException, OmegaConfBaseException) as error:
        screen.error(explain(error))
        sys.exit(USER_MISTAKE)
    except KeyboardInterrupt:
        screen.error("interrupted")
        sys.exit(INTERRUPTED)


def continue_with(run: Path | None) -> None:
    """Print the command that resumes an interrupted or failed run."""
    if run is not None:
        screen.next_run(f"resume={screen.quoted(run)}")


def lacking_memory(error: Exception) -> str | None:
    """What an error says of memory that could not be had, as Python or torch says it; None where it is another."""
    if isinstance(error, MemoryError):
        return str(error)[:300]
    lines = str(error).splitlines() if isinstance(error, RuntimeError) else []
    return next((line[:300] for line in lines if any(words in line for words in NO_MEMORY)), None)


def dispatch(config: DictConfig, typed: bool) -> int:
    """Do what a composed config asks for, and return the exit status; errors are left to `run`."""
    check_root(config)
    if config.sweep.job:
        from warmstart.stages.runner import StageRunner
        from warmstart.sweep import external  # imports Optuna

        state = external.run(Path(config.sweep.job), tuple(config.trust), StageRunner())
        return FAILED if state == "failed" else 0
    if config.sweep.resume:
        raise UserError(f"sweep.resume={config.sweep.resume} resumes a sweep: add -m")
    if config.get("resume") is not None:
        cores.configure(config)
        importlib.import_module("warmstart.resume").run(str(config.resume), config.trust)
        return 0
    config = prepare(config, typed)
    if config.stage != "report":  # which needs no torch
        cores.configure(config)
        importlib.import_module("warmstart.training.components").check_targets(config)
    importlib.import_module(f"warmstart.stages.{config.stage}").run(config)
    return 0


def run(config: DictConfig, typed: bool = True) -> int:
    """Check a composed config and run its stage, or the job of a sweep that it names; return the exit status.

    Args:
        config: as Hydra composed it.
        typed: whether its experiment was asked for; else a stage that starts from a run takes that of the run.
    """
    try:
        return dispatch(config, typed)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        screen.error(explain(error))
        return USER_MISTAKE
    except Unmet as result:
        screen.error(str(result))
        return UNMET
    except KeyboardInterrupt as signal_:
        screen.error("interrupted")
        continue_with(getattr(signal_, "run", None))
        return INTERRUPTED
    except Exception as error:
        failure = as_write_error(error, Path(tempfile.gettempdir()))
        if failure is not None:
            screen.error(f"{failure}; make room or choose another disk, then continue")
            continue_with(failure.run)
        elif (reason := lacking_memory(error)) is not None:
            screen.error(f"this machine has not enough memory for these settings: {reason}")
            return USER_MISTAKE
        else:
            sys.stderr.write(screen.safe(traceback.format_exc()))
        return FAILED
