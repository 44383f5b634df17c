"""Compare the throughput of sweeps: warmstart's launchers, and Lightning under Hydra's basic launcher.

The commands alternate. Jobs per minute are counted from the start of the first job to the end of the last one, which
excludes the import of torch, once per command; the time of the complete command is printed as well.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from operator import truediv
from pathlib import Path
from statistics import median
from typing import NamedTuple

from warmstart import main as command_line
from warmstart.core import screen
from warmstart.run.manifest import Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.pool import run_once
from warmstart.sweep.preflight import check_jobs

ROOT = Path(__file__).parents[1]
JOBS, TURNS = 16, 3
SEEDS = f"seed=range({JOBS})"
OURS = ("stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=5", SEEDS)
GOALS = {"pool, 2 workers": 1.6, "vmap": 4.0}
LAUNCHERS = {
    "pool, 1 worker": ("hydra/launcher=pool", "hydra.launcher.workers=1"),
    "pool, 2 workers": ("hydra/launcher=pool", "hydra.launcher.workers=2"),
    "pool, 2 workers, not isolated": (
        "hydra/launcher=pool",
        "hydra.launcher.workers=2",
        "hydra.launcher.isolate=false",
    ),
    "vmap": ("hydra/launcher=vmap",),
}


class Sweep(NamedTuple):
    """One sweep: seconds of its jobs, seconds of the complete command, and what a job took besides its run."""

    jobs: float
    complete: float
    overhead: float = 0.0


def plain() -> Sweep:
    """Lightning's defaults under Hydra's basic sweeper and launcher."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        words = [
            sys.executable,
            str(ROOT / "scripts" / "plain.py"),
            "-m",
            "+" + SEEDS,
            f"hydra.sweep.dir={folder}/multirun",
        ]
        done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
        complete = time.monotonic() - started
    times = [tuple(map(float, line.split()[1:])) for line in done.stdout.splitlines() if line.startswith("job ")]
    assert len(times) == JOBS
    return Sweep(times[-1][1] - times[0][0], complete)


def ours(launcher: tuple[str, ...]) -> Sweep:
    """The same jobs by warmstart; from the first job's config to the last record."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        words = [sys.executable, str(ROOT / "train.py"), "-m", *OURS, *launcher, f"output_dir={folder}"]
        subprocess.run(words, check=True, capture_output=True)
        complete = time.monotonic() - started
        paths = list(Path(folder).glob("sweep/*/*/*/runs/*/run.json"))
        begins = [path.with_name("config.yaml").stat().st_mtime for path in paths]
        jobs = max(path.stat().st_mtime for path in paths) - min(begins)
        records = [json.loads(path.read_text()) for path in paths]
    assert [record["status"] for record in records] == ["done"] * JOBS
    return Sweep(jobs, complete, jobs / JOBS - median(record["cost"]["seconds"] for record in records))


def planning(jobs: int) -> float:
    """Seconds to compose, bind, try and freeze that many jobs."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        words = [*OURS[:-1], f"seed=range({jobs // 2})", "loss=cross_entropy,focal"]
        plan = grid(Composer([command_line.CONF]), words)
        found = run_once(functools.partial(check_jobs, plan, command_line.CONF, True, StageRunner()))
        assert (len(plan), found.problem) == (jobs, None)
        Manifest(Path(folder) / "sweep", "finetune", "digits", words, found.metric, found.mode, {}, plan).write()
        return time.monotonic() - started


def main() -> None:
    """Run every command `TURNS` times, and plan a thousand jobs."""
    arms = {name: functools.partial(ours, words) for name, words in LAUNCHERS.items()}
    sweeps: dict[str, list[Sweep]] = {name: [] for name in ("plain", *arms)}
    for _ in range(TURNS):
        for name, run in {"plain": plain, **arms}.items():
            sweeps[name].append(run())
    base = sweeps.pop("plain")
    rows = []
    for name, own in sweeps.items():
        goal = GOALS.get(name)
        for part, bound in (("jobs", goal), ("complete", None)):
            times = [[getattr(sweep, part) for sweep in arm] for arm in (base, own)]
            ratio = median(map(truediv, *times))
            pair = f"{JOBS * 60 / median(times[1]):.0f} : {JOBS * 60 / median(times[0]):.0f} /min"
            met = "" if bound is None else "met" if ratio >= bound else "missed"
            what = (
                f"{name} : Lightning under Hydra's basic launcher, {'jobs' if part == 'jobs' else 'complete command'}"
            )
            rows.append((what, pair, f"{ratio:.2f}", "" if bound is None else f"at least {bound}", met))
    alone = median(sweep.overhead for sweep in sweeps["pool, 1 worker"])
    rows.append(("one job in a process of its own, besides its run", f"{alone:.2f} s", "", "", ""))
    seconds = planning(1000)
    rows.append(("planning 1,000 jobs", f"{seconds:.1f} s", "", "at most 10 s", "met" if seconds <= 10 else "missed"))
    columns = ("what", "measured", "ratio", "goal", "")
    screen.table(f"{JOBS} jobs: MLP on digits, 5 epochs; {os.cpu_count()} cores", columns, rows)


if __name__ == "__main__":
    main()
