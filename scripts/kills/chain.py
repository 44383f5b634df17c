"""Kill and resume one run repeatedly until it is done, and check the invariants after each command."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.kills.command import SIGNALS, Command, Ended, Kill
from scripts.kills.compare import differences
from scripts.kills.scenarios import Scenario, run_folder

from warmstart import main
from warmstart.core.errors import UserError
from warmstart.run.folder import RunFolder
from warmstart.run.lock import Lock

OVER = ("done", "pruned")


@dataclass
class Result:
    """What came of a scenario that was killed.

    Args:
        scenario: it.
        kills: how many signals were sent.
        resumes: how many commands continued it.
        different: what is not as in the undisturbed run, or should not be, a line each.
        stuck: why it cannot be continued.
    """

    scenario: Scenario
    kills: int = 0
    resumes: int = 0
    different: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)


def harass(
    scenario: Scenario, folder: Path, calm: Path, places: dict[str, str], kills: Sequence[Kill], rival: bool = False
) -> Result:
    """Start, kill, continue until nothing is left to kill by and the run is done; then compare.

    Args:
        scenario: what to run.
        folder: where.
        calm: the folder of the undisturbed run or sweep.
        places: folders and files of the scenario's arguments.
        kills: one for each command in turn.
        rival: whether a second command tries to continue the run beside the last one.
    """
    result, left, history = Result(scenario), list(kills), []
    while True:
        run = run_folder(folder)
        words = scenario.arguments(places) if run is None else resume_words(scenario, run.relative_to(folder))
        result.resumes += run is not None
        command = Command(folder, words, left.pop(0) if left else None)
        if rival and run is not None and not left and command.kill is None and not scenario.is_sweep:
            result.different += compete(command, folder, run)
        ended = command.wait()
        history.append(f"{command.kill or 'continued'}, {ended.where}" if ended.killed else "continued")
        run = run_folder(folder)
        problems = check_end(ended, folder, run, scenario, "SIGKILL" not in str(history))
        if ended.killed:
            result.kills += 1
        elif ended.status:
            result.stuck.append(
                f"{'; '.join(history)}: status {ended.status}: {' '.join(ended.errors) or ended.output[-1500:]}"
            )
            return result
        result.different += [f"{'; '.join(history)}: {line}" for line in problems]
        if run is not None and is_over(run, ended):
            break
        if not ended.killed and not left:
            result.stuck.append(f"{'; '.join(history)}: it ended with 0 and is not done")
            return result
    after = [*leftovers(folder), *differences(calm, run)]
    result.different += [f"{'; '.join(history)}: {line}" for line in after]
    return result


def resume_words(scenario: Scenario, run: Path) -> list[str]:
    """Return the arguments that continue a run or sweep."""
    return ["-m", f"sweep.resume={run}"] if scenario.is_sweep else [f"resume={run}"]


def is_over(run: Path, ended: Ended) -> bool:
    """Whether a run needs no further command; a sweep, whose status is that of its command."""
    if not (run / "run.json").exists():
        return not ended.killed
    status = RunFolder.open(run).record["status"]
    return status in OVER and (not ended.killed or RunFolder.open(run).record["stage"] != "transfer")


def check_end(ended: Ended, folder: Path, run: Path | None, scenario: Scenario, is_clean: bool) -> list[str]:
    """Return what is wrong after a command has ended: its status, what readers see, what it printed, what is left."""
    if ended.status and not ended.killed:
        return []
    found = []
    if ended.status not in (0, main.INTERRUPTED, main.TERMINATED, *(-number for number in SIGNALS)):
        found.append(f"status {ended.status}: {' '.join(ended.errors) or ended.output[-1500:]}")
    try:
        records = {path.parent: RunFolder.open(path.parent).record for path in folder.rglob("run.json")}
    except UserError as error:
        return [*found, str(error)]
    for path, record in records.items():
        if record["status"] not in (*OVER, "interrupted"):
            found.append(f"{path.relative_to(folder)} is {record['status']}: {record['error']}")
    if ended.status in (main.INTERRUPTED, main.TERMINATED):
        found += leftovers(folder) if is_clean else []
        if run is not None and not scenario.is_sweep and ended.points and records[run]["status"] not in OVER:
            printed = f"resume={run.relative_to(folder)}" in ended.output
            found += [] if printed else ["interrupted, but the command that continues the run is not printed"]
    return found


def leftovers(folder: Path) -> list[str]:
    """Return temporary files and folders, and locks that are held or signed, but for folders that are no run yet."""
    begun = {path.parent for path in folder.glob("outputs/*/*/*/lock") if not (path.parent / "run.json").exists()}
    found = [path for path in folder.rglob(".*")]
    found += [path for path in folder.rglob("lock") if Lock(path).is_held() or path.stat().st_size]
    return [f"{path.relative_to(folder)} was left" for path in found if not begun & set(path.parents)]


def compete(command: Command, folder: Path, run: Path) -> list[str]:
    """Stop the command once it holds the run, and return what is wrong with a second one that would continue it."""
    lock = Lock(run / "lock")
    while not lock.is_held():
        if os.waitid(os.P_PID, command.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return []
        time.sleep(0.005)
    os.kill(command.pid, signal.SIGSTOP)
    try:
        if not lock.is_held():
            return []
        second = Command(folder, [f"resume={run.relative_to(folder)}"]).wait()
    finally:
        os.kill(command.pid, signal.SIGCONT)
    lines = second.output.strip().splitlines()
    if second.status != 2 or len(lines) != 1 or not lines[0].startswith("error:"):
        return [f"a second resume= beside the first: status {second.status}, {second.output[-500:]}"]
    return []
