"""Compose the config, check it, and call the stage. Nothing here imports torch."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.resolve import adopt, follow
from warmstart.config.validate import check, check_root, explain, target_of
from warmstart.core import screen
from warmstart.core.errors import Unmet, UserError
from warmstart.core.protocols import Source
from warmstart.run import cores
from warmstart.run.files import as_write_error
from warmstart.run.identity import new_id

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"

NO_MEMORY = ("can't allocate memory", "Storage size calculation overflowed", "out of memory")  # of torch's errors
QUICK = 2**22  # bytes of a file that may be read twice
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
        sys.argv[1:] = spelled_out(sys.argv[1:])
    except UserError as error:
        screen.error(str(error))
        sys.exit(USER_MISTAKE)
    for word in sys.argv[1:]:
        group = CONF / word.lstrip("+").partition("=")[0]
        if re.fullmatch(r"\+*[a-z_/]*=(null|true|false|nan|inf|[-+.\d]\S*|)", word) and group.is_dir():
            screen.error(f"{word}: give a name, or leave the word out for what the experiment chooses")
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


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words of a command line, with `data=[a,b]` as Hydra is to compose it: each data set a task of its own.

    `data=[x:table,y:table]` gives the tasks other names. Unless they say otherwise, the objective has a head for each.

    Raises:
        UserError: there are fewer than two data sets or several lists, or a name is no name or given twice.
    """
    lists = [word for word in words if word.startswith("data=[")]
    if not lists:
        return list(words)
    inner = re.fullmatch(r"data=\[([^\[\]]*)\]", lists[0])
    if inner is None or len(lists) > 1:
        raise UserError(f"{lists[-1]}: give one list of data sets, such as data=[a,b]")
    chosen: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in inner[1].split(","))):
        name, _, option = entry.rpartition(":")
        name = name or option
        if not re.fullmatch(r"[A-Za-z]\w*", name) or (CONF / name).is_dir():
            raise UserError(f"{lists[0]}: {name} is no name for a task: give another, such as data=[x:{option},...]")
        if name in chosen:
            raise UserError(f"{lists[0]}: two tasks are called {name}: name them, such as data=[x:{option},y:{option}]")
        chosen[name] = option
    if len(chosen) < 2:
        raise UserError(f"{lists[0]}: name two or more data sets, such as data=[a,b]")
    spelled = ["data=several", *(f"+data@data.sources.{name}={option}" for name, option in chosen.items())]
    others = [word for word in words if word != lists[0]]
    if not any(word.startswith(("objective=", "stage=pretrain")) for word in others):
        spelled += ["objective=multitask", *(f"+objective.weights.{name}=1.0" for name in chosen)]
    first = next(place for place, word in enumerate(words) if re.match(r"[+~\w]", word) and "=" in word)
    return [*words[:first], *spelled, *(word for word in words[first:] if word != lists[0])]


def check_data(node: DictConfig | None, place: str) -> None:
    """Refuse small data that cannot be read, before torch is imported for what it is read for.

    Raises:
        UserError: as the source's `load`, or a setting is of another type than it takes.
    """
    source = target_of(node, place) if node and "_target_" in node else None
    if not (isinstance(source, type) and issubclass(source, Source) and source.is_quick):
        return
    path = Path(str(node.root))
    is_large = path.is_file() and path.stat().st_size > QUICK
    if is_large or path.is_dir() or not (path.suffix or path.exists()):  # the last is a hub name
        return
    taken = inspect.signature(source).parameters.keys() & node.keys()
    settings = {**OmegaConf.to_container(node, resolve=True), "tokenizer": dict}
    with screen.quiet():
        given = {name: settings[name] for name in taken}
        importlib.import_module("warmstart.config.signature").check_settings(source, given, place)
        source(**given).load(None)


def run(config: DictConfig, typed: bool = True) -> int:
    """Check a composed config and run its stage, or the job of a sweep that it names; return the exit status.

    Args:
        config: as Hydra composed it.
        typed: whether its experiment was asked for; else a stage that starts from a run takes that of the run.
    """
    try:
        check_root(config)
        if config.sweep.job:
            command = importlib.import_module("warmstart.sweep.external")
            return FAILED if command.run(Path(config.sweep.job), tuple(config.trust)) == "failed" else 0
        if config.sweep.resume:
            raise UserError(f"sweep.resume={config.sweep.resume} resumes a sweep: add -m")
        if config.get("resume") is not None:
            cores.take(config)
            importlib.import_module("warmstart.resume").run(str(config.resume), config.trust)
            return 0
        config = OmegaConf.masked_copy(config, [key for key in config if key not in ("sweep", "resume")])
        check(config)
        if config.get("input") is not None and not Path(str(config.input)).exists():
            raise UserError(f"input={config.input}: there is no such file or folder")
        from warmstart.data.schema import lacking  # imports pandas, which no help text needs

        lacks = lacking(config)
        config = adopt(config if typed else follow(config, lacks), lacks)
        check_data(config.get("data"), "data")
        check_data((config.get("pretrain") or {}).get("data"), "pretrain.data")
        if config.stage != "report":  # which needs no torch
            cores.take(config)
            importlib.import_module("warmstart.training.components").check_targets(config)
        importlib.import_module(f"warmstart.stages.{config.stage}").run(config)
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
    return 0
