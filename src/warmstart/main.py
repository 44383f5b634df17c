"""The entry point: composes and checks the config, and calls the stage. It does not import torch."""

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
from warmstart.core.errors import Unmet, UserError, interrupt_of, is_terminated
from warmstart.core.signals import interrupt
from warmstart.distributed import environment
from warmstart.run import cores
from warmstart.run.files import as_write_error
from warmstart.run.identity import new_id

NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")  # of torch
TRAINING = ("pretrain", "finetune")
AUTO = "auto"
USER_ERROR, FAILED, UNMET, TERMINATED, INTERRUPTED = 2, 1, 4, 75, 130

OmegaConf.register_new_resolver("new_id", new_id, use_cache=True, replace=True)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _job(config: DictConfig) -> None:
    typed = any(word.startswith("experiment=") for word in HydraConfig.get().overrides.task)
    status = run(config, typed)
    if HydraConfig.get().mode == hydra.types.RunMode.RUN and status:
        sys.exit(status)


def main() -> None:
    """Run the command line.

    The exit status is 1 for a bug, 2 for a UserError, 3 for failed jobs, 4 for an unmet `transfer.require`, 75 for
    SIGTERM, and 130 for Ctrl-C.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of exiting with 1
    logging.getLogger().addHandler(logging.NullHandler())  # no output of log records on the screen
    environment.read_slurm()
    if environment.is_launched():
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns of the search for unused parameters
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # except during a training, which then saves a checkpoint
        signal.signal(signal.SIGTERM, interrupt)
        if environment.is_launched() and {"-m", "--multirun"} & set(sys.argv):
            raise UserError("a sweep starts the processes of its jobs itself: set trainer.devices, without torchrun")
        sys.argv[1:] = expand(sys.argv[1:])
        check_names(sys.argv[1:])
        _job()
    except (UserError, HydraException, OmegaConfBaseException, KeyboardInterrupt) as error:
        sys.exit(report(error))


def print_resume(run: Path | None) -> None:
    """Print the command that resumes an interrupted or failed run."""
    if run is not None:
        screen.next_run(f"resume={screen.quoted(run)}")


def out_of_memory(error: Exception) -> str | None:
    """Return the message of an out-of-memory error of Python or torch; None for other errors."""
    if isinstance(error, MemoryError):
        return str(error)[:300]
    lines = str(error).splitlines() if isinstance(error, RuntimeError) else []
    return next((line[:300] for line in lines if any(words in line for words in NO_MEMORY)), None)


def dispatch(config: DictConfig, typed: bool) -> int:
    """Run the job, resume or stage of a composed config; return the exit status. Errors are handled by `run`."""
    check_root(config)
    if config.sweep.job:
        from warmstart.stages.runner import StageRunner
        from warmstart.sweep import external  # imports Optuna

        state = external.run(Path(config.sweep.job), tuple(config.trust), StageRunner())
        return FAILED if state == "failed" else 0
    if config.sweep.resume:
        raise UserError(f"sweep.resume={config.sweep.resume} resumes a sweep: add -m")
    if config.get("extend") is not None:
        cores.configure(config, Path(str(config.extend)))
        importlib.import_module("warmstart.extend").run(config)
        return 0
    if config.get("resume") not in (None, AUTO):
        return resume(config, Path(str(config.resume)))
    is_auto = config.get("resume") == AUTO
    config = prepare(config, typed)
    if is_auto and (found := importlib.import_module("warmstart.resume").find(config)) is not None:
        return resume(config, found, is_auto)
    return run_stage(config)


def resume(config: DictConfig, folder: Path, is_auto: bool = False) -> int:
    """Resume a run; return the exit status.

    Args:
        config: of this command line.
        folder: of the run.
        is_auto: whether it was found as the run of this command line.
    """
    cores.configure(config, folder)
    join(divides=cores.recorded_threads(folder) is None)
    importlib.import_module("warmstart.resume").run(folder, config.trust, is_auto)
    return 0


def run_stage(config: DictConfig) -> int:
    """Run the stage of a prepared config; return the exit status."""
    if environment.is_launched() and config.stage not in TRAINING:
        raise UserError(f"stage={config.stage} is not a training of several processes: start it without torchrun")
    if config.stage != "report":  # which needs no torch
        cores.configure(config)
        join()
        importlib.import_module("warmstart.training.components").check_targets(config)
    importlib.import_module(f"warmstart.stages.{config.stage}").run(config)
    return 0


def join(divides: bool = True) -> None:
    """Join the other processes of a training, if torchrun or Slurm started several; only the first prints.

    Args:
        divides: whether to divide the CPU threads among the processes of this machine.
    """
    if environment.is_launched():
        importlib.import_module("warmstart.training.processes").join(divides)
        if environment.number() > 0:
            screen.be_quiet()


def run(config: DictConfig, typed: bool = True) -> int:
    """Check a composed config and run its stage or its job; return the exit status.

    Args:
        config: as Hydra composed it.
        typed: whether the experiment was given; if not, a stage that uses a run takes the run's experiment.
    """
    try:
        return dispatch(config, typed)
    except UserError as error:
        return report(error) if environment.number() == 0 else USER_ERROR
    except (KeyboardInterrupt, Exception) as error:
        return report(error)


def report(error: BaseException) -> int:
    """Print what happened and what to do; return the exit status."""
    if (found := interrupt_of(error)) is not None:
        is_killed = is_terminated(error)
        screen.error("interrupted by SIGTERM" if is_killed else "interrupted")
        print_resume(getattr(found, "run", None))
        return TERMINATED if is_killed else INTERRUPTED
    if isinstance(error, (UserError, HydraException, OmegaConfBaseException)):
        screen.error(explain(error))
        return USER_ERROR
    if isinstance(error, Unmet):
        screen.error(str(error))
        return UNMET
    if (failure := as_write_error(error, Path(tempfile.gettempdir()))) is not None:
        screen.error(f"{failure}; free space or choose another disk, then resume")
        print_resume(failure.run)
        return FAILED
    if (reason := out_of_memory(error)) is not None:
        screen.error(f"not enough memory for these settings: {reason}")
        return USER_ERROR
    sys.stderr.write(screen.safe("".join(traceback.format_exception(error))))
    return FAILED
