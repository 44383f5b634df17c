"""Compare `trainer.threads=auto` with fixed numbers for a small text finetuning, alone and with one busy process.

Seconds are those of the training (`cost.seconds` of its run), with the processor seconds of the complete command.
Each is the minimum over the turns, and the ratio compares auto with the fastest fixed setting. A fixed setting that is
much slower than the fastest one is stopped and excluded from later turns.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from warmstart.core import screen
from warmstart.data.sources.text.shakespeare import Shakespeare
from warmstart.run.cores import WAITING, usable_cpus

ROOT = Path(__file__).parents[1]
TURNS, STEPS, ROWS, GOAL = 2, 150, 1000, 1.1
FAR = 1.5  # times as long as the fastest
CORES = str(len(usable_cpus()))
FIXED = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    f"{CORES} threads": {"OMP_NUM_THREADS": CORES},
    f"{CORES} threads, passive": {"OMP_NUM_THREADS": CORES, "OMP_WAIT_POLICY": "passive"},
}
SETTINGS = {**FIXED, "auto": {}}
LOOP = "print(flush=True)\nwhile True: pass"
TORCH = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(128, 512), torch.nn.GELU(), torch.nn.Linear(512, 128))
optimizer, x = torch.optim.AdamW(model.parameters()), torch.randn(512, 128)
print(flush=True)
while True:
    optimizer.zero_grad()
    (model(x) - x).square().mean().backward()
    optimizer.step()
"""
NEIGHBOURS = {"alone": None, "beside a busy loop": LOOP, f"beside a torch process of {CORES} threads": TORCH}


class Cost(NamedTuple):
    """Of one finetuning: seconds, processor seconds, threads, and whether it ended by itself."""

    seconds: float
    processor: float
    threads: int | None
    is_done: bool = True


def plain_environment(**more: str) -> dict[str, str]:
    """The environment without settings of OpenMP other than these."""
    hidden = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", *WAITING)
    return {**{name: value for name, value in os.environ.items() if name not in hidden}, **more}


@contextlib.contextmanager
def neighbour(code: str | None) -> Iterator[None]:
    """A process that is busy with this code while the block runs."""
    if code is None:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", code], env=plain_environment(), stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            yield
        finally:
            process.kill()


def finetune(folder: Path, setting: dict[str, str], longest: float) -> Cost:
    """The cost of a finetuning in a process of its own, which is stopped after `longest` seconds."""
    words = (
        "stage=finetune",
        "experiment=text",
        "init=scratch",
        "test=false",
        "visualization=[]",
        f"data.root={folder / 'lines.csv'}",
        "data.text=text",
        "data.target=part",
        "data.tokenizer.vocabulary=1024",
        "backbone=small",
        "data.batch_size=16",
        "trainer.max_epochs=-1",
        f"trainer.max_steps={STEPS}",
        "trainer.check_val_every_n_epoch=null",
        f"trainer.val_check_interval={STEPS}",
        "trainer.limit_val_batches=2",
    )
    environment = plain_environment(WARMSTART_CACHE=str(folder / "cache"), **setting)
    with tempfile.TemporaryDirectory(dir=folder) as output:
        before, started = os.times(), time.monotonic()
        command = [sys.executable, str(ROOT / "train.py"), *words, f"output_dir={output}"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                _, stderr = process.communicate(timeout=longest)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        if process.returncode == -9:
            return Cost(time.monotonic() - started, processor, None, False)
        if process.returncode:
            raise RuntimeError(stderr.decode())
        (path,) = Path(output).glob("finetune/*/*/run.json")
        record = json.loads(path.read_text())
    return Cost(record["cost"]["seconds"], processor, record["threads"])


def measure(folder: Path, code: str | None) -> dict[str, list[Cost]]:
    """The costs of every setting beside one neighbour."""
    costs: dict[str, list[Cost]] = {}
    limit = 600.0
    for turn in range(TURNS):
        fastest = min((own[0].seconds for own in costs.values() if own[0].is_done), default=0.0)
        for name, setting in SETTINGS.items():
            is_near = turn == 0 or (costs[name][0].is_done and costs[name][0].seconds <= FAR * fastest)
            if is_near or name == "auto":
                with neighbour(code):
                    started = time.monotonic()
                    costs.setdefault(name, []).append(finetune(folder, setting, limit if name in FIXED else 600.0))
                    limit = min(limit, FAR * (time.monotonic() - started))
    return costs


def table_rows(where: str, costs: dict[str, list[Cost]]) -> Iterator[tuple[str, ...]]:
    """A row for every setting; that of auto has its ratio to the best of the others."""
    seconds = {name: min(cost.seconds for cost in own) for name, own in costs.items()}
    done = {name for name, own in costs.items() if all(cost.is_done for cost in own)}
    best = min(FIXED, key=lambda name: (name not in done, seconds[name]))
    for name, own in costs.items():
        times = f"{'' if name in done else 'over '}{seconds[name]:.1f} s"
        processor = f"{min(cost.processor for cost in own):.1f} s"
        if name != "auto":
            yield f"{where}: {name}", times, processor, "", "", ""
            continue
        ratio = seconds[name] / seconds[best]
        chosen = "/".join(sorted({str(cost.threads) for cost in own}))
        verdict = "met" if name in done and ratio <= GOAL else "missed"
        what = f"{where}: auto (threads: {chosen}) : {best}"
        yield what, times, processor, f"{ratio:.2f}", f"at most {GOAL}", verdict


def main() -> None:
    """Write the data, run every setting beside every neighbour, and print one table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = Shakespeare(None).load(None).train.x["text"][0]
        lines = [line.replace('"', "") for line in text.splitlines() if len(line) > 30][:ROWS]
        rows = [f'"{line}",{"first" if number < ROWS // 2 else "second"}' for number, line in enumerate(lines)]
        (folder / "lines.csv").write_text("text,part\n" + "\n".join(rows) + "\n")
        finetune(folder, FIXED["1 thread"], 600.0)  # tokenizes the texts for the others
        found = {where: measure(folder, code) for where, code in NEIGHBOURS.items()}
    columns = ("what", "training", "processor", "ratio", "goal", "")
    title = f"{STEPS} steps of finetuning on text, {CORES} cores"
    screen.table(title, columns, [row for where, costs in found.items() for row in table_rows(where, costs)])


if __name__ == "__main__":
    main()
