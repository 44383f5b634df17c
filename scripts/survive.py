"""A sweep is killed at random moments and taken up again until it is done, then held against one left in peace.

    python scripts/survive.py                   # 24 jobs of a grid, 20 kills
    python scripts/survive.py --search          # 24 trials of a study, 20 kills

Ends with 1 and says why when a job was done twice, or a table is not what the undisturbed sweep's is.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

TRAIN = [sys.executable, str(Path(__file__).parents[1] / "train.py"), "-m"]
FIXED = ["stage=finetune", "init=scratch", "pictures=false", "trainer.check_val_every_n_epoch=5"]
TIMES = ["seconds", "mean_seconds"]


def main() -> int:
    """Run both sweeps and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="a study of Optuna's instead of a grid")
    parser.add_argument("--jobs", type=int, default=24)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--longest", type=float, default=20, help="seconds until a kill, at most")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    words = [*FIXED, f"trainer.max_epochs={options.epochs}"]
    if options.search:
        words += ["sweep=optuna", f"sweep.trials={options.jobs}", "sweep.pruner=median"]
        words += ["optimizer.lr=interval(1e-4,1e-1)", "loss=cross_entropy,focal"]
    else:
        words += ["optimizer.lr=0.01,0.003", f"seed=range({options.jobs // 2})"]
    with tempfile.TemporaryDirectory() as folder:
        calm = sweep_folder(Path(folder) / "calm", words)
        if subprocess.run([*TRAIN, *words, f"output_dir={folder}/calm"], stderr=subprocess.DEVNULL).returncode:
            return complain("the undisturbed sweep did not end with 0")
        calm = sweep_folder(Path(folder) / "calm", words)
        torn = harass(Path(folder) / "torn", words, options.kills, options.longest, random.Random(options.seed))
        if isinstance(torn, str):
            return complain(torn)
        return compare(calm, torn)


def harass(output_dir: Path, words: list[str], kills: int, longest: float, moments: random.Random) -> Path | str:
    """Start, kill, start again; the sweep's folder, or what went wrong."""
    done: dict[str, tuple[str, int]] = {}
    left = kills
    while True:
        folder = sweep_folder(output_dir, words)
        resume = [f"sweep.resume={folder}"] if folder else words
        process = subprocess.Popen(
            [*TRAIN, *resume, f"output_dir={output_dir}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            _, error = process.communicate(timeout=moments.uniform(0.5, longest) if left else None)
        except subprocess.TimeoutExpired:
            everyone = moments.random() < 0.5
            os.killpg(process.pid, signal.SIGKILL) if everyone else process.kill()
            process.communicate()
            left -= 1
            time.sleep(moments.choice([0.0, 0.3]))
        else:
            if process.returncode:
                return f"it ended with {process.returncode}: {error[-2000:]}"
            if not left:
                return sweep_folder(output_dir, words)
            print(f"done early, after {kills - left} kills: give more epochs")
            left = 0
        now = finished(sweep_folder(output_dir, words))
        changed = [name for name in done if now.get(name) != done[name]]
        if changed:
            return f"done jobs were touched again: {changed}"
        done = now
        print(f"{left} kills left, {len(done)} jobs done", flush=True)


def sweep_folder(output_dir: Path, words: list[str]) -> Path | None:
    """The sweep's folder, once its plan is frozen."""
    found = sorted(path.parent for path in output_dir.glob("sweep/*/*/*/manifest.json"))
    return found[0] if found else None


def finished(folder: Path | None) -> dict[str, tuple[str, int]]:
    """Id and time of change of every run that is over."""
    over = {}
    for path in folder.glob("runs/*/run.json") if folder else ():
        record = json.loads(path.read_text())
        if record["status"] in ("done", "pruned"):
            over[path.parent.name] = (record["id"], path.stat().st_mtime_ns)
    return over


def compare(calm: Path, torn: Path) -> int:
    """0 where every table of both sweeps is equal, times left out."""
    for name in ("jobs.csv", "leaderboard.csv"):
        tables = [pd.read_csv(folder / name) for folder in (calm, torn)]
        tables = [table.drop(columns=[key for key in table if key in TIMES]) for table in tables]
        try:
            pd.testing.assert_frame_equal(*tables)
        except AssertionError as error:
            return complain(f"{name} differs: {error}")
    attempts = [json.loads(path.read_text())["sweep"]["attempts"] for path in torn.glob("runs/*/run.json")]
    print(f"{len(attempts)} runs, every one done once, {sum(attempts)} attempts; the tables are equal")
    return 0


def complain(problem: str) -> int:
    """Say what went wrong."""
    print(f"FAILED: {problem}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
