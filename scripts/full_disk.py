"""Run commands on file systems that are full, read-only or limit the size of files, then resume them with free space.

    python scripts/full_disk.py              # as root, or with user namespaces
    python scripts/full_disk.py sweep 160k   # one command and size only

Each must end with status 1 (3 for a sweep with a failed job), an error of one or two lines that names a file, "failed"
in run.json, and no temporary file; with free space, it must resume and end with 0. Exits with 1 if one does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = ["64k", "96k", "128k", "160k", "192k", "256k", "384k", "512k", "768k", "1m", "2m", "4m"]
TINY = ["visualization=[]", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=5"]
ARMS = ["transfer.arms=[pretrained,scratch]", "transfer.labels=[1]", "transfer.seeds=2", "transfer.pretrain_seeds=1"]
SHORT = [*TINY, *(f"pretrain.{word}" for word in TINY[1:]), "visualization@pretrain.visualization=[]"]
HERE = ["hydra.launcher.workers=0"]
SEARCH = ["sweep=optuna", "sweep.trials=2", "sweep.sampler=random", "optimizer.lr=0.01,0.003"]
COMMANDS = {
    "pretrain": ["stage=pretrain", *TINY],
    "finetune": ["stage=finetune", "init=scratch", *TINY],
    "transfer": ["stage=transfer", *ARMS, *SHORT, *HERE],
    "sweep": ["-m", "stage=finetune", "init=scratch", *TINY, "seed=0,1", *HERE],
    "search": ["-m", *SEARCH, "stage=finetune", "init=scratch", *TINY, *HERE],
    "vmap": ["-m", "stage=finetune", "init=scratch", *TINY, "seed=0,1", "hydra/launcher=vmap", *HERE],
}
LEFT = ".*.tmp"


def mounted() -> int:
    """Run this script again in a mount namespace of its own."""
    return subprocess.run(["unshare", "-rm", sys.executable, *sys.argv, "--mounted"]).returncode


def mount(folder: Path, options: str) -> None:
    """Put a tmpfs there, or change the one that is there."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def outcome(words: list[str], output: Path, ended: object, sweeps: bool) -> list[str]:
    """What is wrong with how a command on a full disk ended."""
    problems = []
    if ended.crashed:
        problems.append("a traceback")
    if ended.status not in ((1, 3) if sweeps else (1,)):
        problems.append(f"status {ended.status}")
    if not 1 <= len(ended.errors) <= 2:
        problems.append(f"{len(ended.errors)} lines of error")
    records = [*output.glob("*/*/*/run.json"), *output.glob("*/*/*/*/runs/*/run.json")]
    states = [json.loads(path.read_text())["status"] for path in records]
    if any(state not in ("failed", "done") for state in states):
        problems.append(f"recorded as {sorted(set(states))}")
    if any(output.rglob(LEFT)):
        problems.append("temporary files are left")
    return problems


def resumed(output: Path, folder: Path) -> list[str]:
    """What is wrong with how it continues once there is room; what never got a folder has nothing to continue."""
    from scripts.forked import command

    problems = []
    for path in [*output.glob("sweep/*/*/*/manifest.json"), *output.glob("*/*/*/run.json")]:
        kind = ["-m", f"sweep.resume={path.parent}", "sweep.retries=1"] if path.name == "manifest.json" else None
        words = [*(kind or [f"resume={path.parent}"]), f"output_dir={output}", *(HERE if kind else [])]
        ended = command(words, folder)
        if ended.status:
            problems.append(f"resumed: status {ended.status}: {' '.join(ended.errors)[:200] or ended.err[-600:]}")
    return problems


def main() -> int:
    """Run every command on every disk; print a line for each."""
    from scripts.forked import command

    chosen = [word for word in sys.argv[1:] if word in COMMANDS] or list(COMMANDS)
    sizes = [word for word in sys.argv[1:] if word in SIZES] or SIZES
    wrong = count = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["WARMSTART_CACHE"] = str(folder / "cache")
        for kind in chosen:
            words, sweeps = COMMANDS[kind], "-m" in COMMANDS[kind]
            for size in sizes:
                output = folder / kind / size
                output.mkdir(parents=True)
                mount(output, f"size={size}")
                ended = command([*words, f"output_dir={output}"], folder)
                fits = ended.status == 0
                problems = [] if fits else outcome(words, output, ended, sweeps)
                mount(output, "remount,size=64m")
                problems += [] if fits else resumed(output, folder)
                subprocess.run(["umount", str(output)], check=True)
                wrong, count = wrong + bool(problems), count + 1
                description = "fits" if fits else " ".join(ended.errors)[:300]
                verdict = f"WRONG: {'; '.join(problems)}" if problems else "right"
                print(f"{kind:9} {size:>5}  {verdict}  {description}", flush=True)
                if ended.crashed:
                    print(ended.err[-1500:])
    print(f"{count} commands, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main() if "--mounted" in sys.argv else mounted())
