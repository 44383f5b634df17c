"""Kill a sweep with its process pool at random moments, and resume it until it is done."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.kills.chain import Result, leftovers
from scripts.kills.compare import differences
from scripts.kills.scenarios import Scenario

TRAIN = (sys.executable, str(Path(__file__).parents[2] / "train.py"))
FIXED = ("-m", "stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=60")
LONGEST = 15.0  # seconds until a kill, at most
SWEEPS = (
    Scenario("sweep", "grid", (*FIXED, "optimizer.lr=0.01,0.003", "seed=range(4)")),
    Scenario(
        "sweep",
        "search",
        (*FIXED, "sweep=optuna", "sweep.trials=8", "sweep.sampler=random", "optimizer.lr=interval(1e-4,1e-1)"),
    ),
)
START = Scenario("start", "first 0.2 s", ("stage=pretrain",))


def harass(scenario: Scenario, folder: Path, kills: int, moments: random.Random) -> Result:
    """Run a sweep undisturbed; start it again, kill it, its processes too or not, and resume it; compare."""
    result, left = Result(scenario), kills
    calm, torn = folder / "calm", folder / "torn"
    calm.mkdir(parents=True)
    torn.mkdir()
    if status := run(scenario.words, calm).wait():
        result.stuck.append(f"the undisturbed sweep ended with {status}")
        return result
    done: dict[str, tuple[str, int]] = {}
    while True:
        found = sweep_folder(torn)
        words = scenario.words if found is None else ("-m", f"sweep.resume={found.relative_to(torn)}")
        result.resumes += found is not None
        process = run(words, torn)
        try:
            status = process.wait(moments.uniform(0.5, LONGEST) if left else None)
        except subprocess.TimeoutExpired:
            everyone = moments.random() < 0.5
            os.killpg(process.pid, signal.SIGKILL) if everyone else process.kill()
            process.wait()
            left, result.kills = left - 1, result.kills + 1
            time.sleep(moments.choice([0.0, 0.3]))
        else:
            if status:
                result.stuck.append(f"it ended with {status}")
                return result
            break
        now = finished(sweep_folder(torn))
        result.different += [f"{name}: was done, and was run again" for name in done if now.get(name) != done[name]]
        done = now
    result.different += leftovers(torn) + differences(sweep_folder(calm), sweep_folder(torn))
    return result


def run(words: Sequence[str], folder: Path) -> subprocess.Popen:
    """Start a command in a session of its own."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*TRAIN, *words, "output_dir=outputs"], cwd=folder, start_new_session=True, **quiet)


def sweep_folder(folder: Path) -> Path | None:
    """Return the sweep's folder, once its plan is frozen."""
    found = sorted(path.parent for path in folder.glob("outputs/sweep/*/*/*/manifest.json"))
    return found[0] if found else None


def finished(folder: Path | None) -> dict[str, tuple[str, int]]:
    """Return id and time of change of every run that is over."""
    over = {}
    for path in folder.glob("runs/*/run.json") if folder else ():
        record = json.loads(path.read_text())
        if record["status"] in ("done", "pruned"):
            over[path.parent.name] = (record["id"], path.stat().st_mtime_ns)
    return over


def harass_start(folder: Path, kills: int, moments: random.Random) -> Result:
    """Kill commands in their first 0.2 seconds, when nothing may be on the disk yet."""
    result = Result(START)
    folder.mkdir()
    for number in range(kills):
        process = run(START.words, folder)
        time.sleep(moments.uniform(0.0, 0.2))
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3])
        status = process.wait()
        result.kills += 1
        if status == 0:
            result.different.append("status 0 after a signal")
    result.different += [f"{path.relative_to(folder)} was made" for path in folder.rglob("*")]
    return result
