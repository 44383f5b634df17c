"""Damage the files that the program reads, one at a time, and check that the command that reads them detects it.

    python scripts/damage.py                # flip a bit or truncate a file, 240 times
    python scripts/damage.py --count 20     # 20 times

Detected means: refused with status 2 and an error of one or two lines that names the file; or a warning names it, and
the result is that of the undamaged files. Prints a table by kind of file; the exit status is 1 if one was not detected.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TINY = ["visualization=[]", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=5"]
SMALL = ["backbone.hidden=[8]"]
MOST = 12  # files of a subject
HERE = ["hydra.launcher.workers=0", "sweep.preflight=false"]
TUNED = ["stage=finetune", "experiment=digits", *TINY, *SMALL]
TEXT = [
    "stage=pretrain",
    "experiment=shakespeare",
    "optimizer=adamw",
    "visualization=[]",
    "trainer.max_steps=2",
    "trainer.max_epochs=-1",
]
TEXT += ["trainer.val_check_interval=2", "trainer.check_val_every_n_epoch=null", "trainer.limit_val_batches=1"]
NOT_READ = {  # by no command: for people, or for programs such as TensorBoard
    "train.log": "the log",
    "events.out.tfevents.*": "TensorBoard's events of a run that is done, and the mean curves of a sweep",
    "*.html": "report pages",
    "report.md": "a report page",
    "report.json": "results, written again by each report",
    "runs.csv": "a table, written again by each report",
    "jobs.csv": "a table, written again by each report",
    "leaderboard.csv": "a table, written again by each report",
    "*.png": "figures",
    "lock": "empty, but for who is at work",
    "checkpoints of a run that is done": "its model is in model/",
    "previous.ckpt": "a checkpoint, read only where last.ckpt or best.ckpt is damaged",
    "pretrained_model.pth": "a second copy of the weights, for other programs",
    "metrics.csv and test_scores.npy of a run alone": "read by the report of a sweep or transfer only",
    "candidates.csv, predictions.jsonl": "results",
}


@dataclass(frozen=True)
class Subject:
    """What is damaged, and the command that reads it.

    Args:
        name: of the kind.
        folder: below the outputs, as a pattern.
        files: patterns of what the command reads there.
        words: the command; `{folder}` stands for the folder.
        result: what must be equal where the command only warns.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    words: tuple[str, ...]
    result: Callable[[Path, object], object]


def printed(outputs: Path, ended: object) -> object:
    """What the command printed as its result, times and paths left out."""
    return re.sub(r"outputs\S*|[0-9.]+ s\b", "", ended.out)


def newest(outputs: Path, ended: object) -> object:
    """The weights of the run that ended last."""
    records = [json.loads(path.read_text()) for path in outputs.rglob("run.json")]
    done = [record for record in records if record["status"] == "done" and "weights_sha256" in record]
    return max(done, key=lambda record: record["id"])["weights_sha256"]


def resumed(outputs: Path, ended: object) -> object:
    """The weights and metrics of the run that was interrupted."""
    (path,) = outputs.glob("interrupted/pretrain/*/*/run.json")
    record = json.loads(path.read_text())
    return record.get("weights_sha256"), record["metrics"], (path.parent / "metrics.csv").read_text()


SUBJECTS = [
    Subject(
        "pretraining",
        "alone/pretrain/*/*",
        ("run.json", "model/*.safetensors", "model/*.json"),
        (*TUNED, "init={folder}"),
        newest,
    ),
    Subject("pretraining", "alone/pretrain/*/*", ("config.yaml",), ("stage=rerun", "run={folder}"), newest),
    Subject(
        "finetuning",
        "alone/finetune/*/*",
        ("run.json", "config.yaml", "model/*"),
        ("stage=evaluate", "experiment=digits", "run={folder}"),
        printed,
    ),
    Subject(
        "interrupted run",
        "interrupted/pretrain/*/*",
        ("run.json", "config.yaml", "metrics.csv", "checkpoints/last.ckpt", "checkpoints/best.ckpt"),
        ("resume={folder}",),
        resumed,
    ),
    Subject(
        "sweep, resumed",
        "grid/sweep/*/*/*",
        ("manifest.json", "runs/*/run.json", "runs/*/metrics.csv", "runs/*/test_scores.npy"),
        ("-m", "sweep.resume={folder}", HERE[0]),
        printed,
    ),
    Subject(
        "sweep, reported",
        "grid/sweep/*/*/*",
        ("manifest.json", "runs/*/run.json", "runs/*/metrics.csv"),
        ("stage=report", "runs={folder}"),
        printed,
    ),
    Subject(
        "search, resumed",
        "search/sweep/*/*/*",
        (
            "manifest.json",
            "study.log",
            "conf/train.yaml",
            "conf/data/digits.yaml",
            "runs/*/run.json",
            "runs/*/metrics.csv",
        ),
        ("-m", "sweep.resume={folder}", HERE[0]),
        printed,
    ),
    Subject(
        "transfer, reported",
        "moved/transfer/*/*",
        ("run.json", "config.yaml", "manifest.json", "runs/*/run.json", "runs/*/metrics.csv", "runs/*/test_scores.npy"),
        ("stage=report", "runs={folder}"),
        printed,
    ),
    Subject("cache", "cache", ("*/*/*",), tuple(TEXT), newest),
]


def make(outputs: Path, log: Path) -> None:
    """Make what is to be damaged.

    Raises:
        SystemExit: a command failed.
    """
    from scripts.forked import command

    from warmstart.training.checkpoint import AtomicCheckpointIO

    def run(name: str, *words: str, before: object = None, status: int = 0) -> None:
        ended = command([*words, f"output_dir={outputs / name}"], log, before)
        if ended.status != status:
            sys.exit(f"{' '.join(words)}: status {ended.status}: {ended.err[-2000:]}")

    def killed() -> None:
        """Die at the end of the fourth epoch."""
        save, saved = AtomicCheckpointIO.save_checkpoint, []

        def save_or_die(self: object, checkpoint: object, path: object, storage_options: object = None) -> None:
            if len(saved) == 3:
                os._exit(9)
            saved.append(path)
            save(self, checkpoint, path, storage_options)

        AtomicCheckpointIO.save_checkpoint = save_or_die

    first = [*TINY, *SMALL]
    run("alone", "stage=pretrain", *first)
    run("alone", *TUNED)
    run("interrupted", "stage=pretrain", *first, "trainer.max_epochs=4", before=killed, status=9)
    run("grid", "-m", *TUNED, "init=scratch", "seed=0,1", *HERE)
    run("search", "-m", "sweep=optuna", *TUNED, "init=scratch", "sweep.trials=2", "optimizer.lr=0.01,0.003", *HERE)
    pretraining = [f"pretrain.{word}" for word in TINY[1:]]
    arms = ["transfer.arms=[pretrained,scratch]", "transfer.labels=[1]", "transfer.seeds=2"]
    run("moved", "stage=transfer", *first, *pretraining, *arms, *HERE[:1])
    run("text", *TEXT)


def damaged(path: Path, chance: random.Random) -> str:
    """Flip a bit of the file or cut its end off; return which."""
    data = bytearray(path.read_bytes())
    if len(data) > 1 and chance.random() < 0.5:
        del data[chance.randrange(len(data)) :]
        description = f"truncated to {len(data)} bytes"
    else:
        place = chance.randrange(len(data))
        data[place] ^= 1 << chance.randrange(8)
        description = f"a bit of byte {place} flipped"
    path.write_bytes(data)
    return description


def run_command(subject: Subject, outputs: Path, log: Path) -> tuple[object, object]:
    """Run the command that reads the subject's files; how it ended, and its result where it was done."""
    from scripts.forked import command

    (folder,) = outputs.glob(subject.folder)
    home = outputs / subject.folder.split("/")[0]
    words = [word.format(folder=folder) for word in subject.words]
    ended = command([*words, f"output_dir={home}"], log)
    return ended, subject.result(outputs, ended) if ended.status == 0 else None


def verdict(path: Path, ended: object, result: object, right: object) -> str | None:
    """Why a damage does not count as detected, or None."""
    named = path.name in ended.err
    if ended.crashed:
        return "a traceback"
    if ended.status == 2:
        if not 1 <= len(ended.errors) <= 2:
            return f"{len(ended.errors)} lines of error"
        return None if named else "the file is not named"
    if ended.status != 0:
        return f"status {ended.status}"
    if not named and path.name == "metrics.csv" and result == right and ended.status == 0:
        return None  # rows after the checkpoint are discarded, and written again as they were
    if not named:
        return "undetected" + ("" if result == right else ", and the result is another")
    return None if result == right else "another result, with a warning"


def damages(count: int, chance: random.Random, outputs: Path) -> list[tuple[Subject, Path]]:
    """So many pairs of a subject and a file of it, each file at least once where that is possible."""
    pairs = []
    for subject in SUBJECTS:
        (folder,) = outputs.glob(subject.folder)
        found = sorted({path for pattern in subject.files for path in folder.glob(pattern) if path.is_file()})
        found = chance.sample(found, min(len(found), MOST))
        pairs += [(subject, path) for path in found if path.stat().st_size and path.name != "lock"]
    chance.shuffle(pairs)
    return [pairs[number % len(pairs)] for number in range(count)]


def survey(count: int, seed: int, folder: Path) -> list[tuple[str, str, str | None]]:
    """Damage files one at a time; the kind of file, what was done to it, and why it was not detected, or None."""
    chance, outputs, kept, log = random.Random(seed), folder / "outputs", folder / "kept", folder / "log"
    log.mkdir(parents=True)
    os.environ["WARMSTART_CACHE"] = str(outputs / "cache")
    make(outputs, log)
    shutil.copytree(outputs, kept)
    rows, right = [], {}
    for subject, path in damages(count, chance, outputs):
        if subject not in right:
            right[subject] = run_command(subject, outputs, log)
            if right[subject][0].status != 0:
                sys.exit(f"{' '.join(subject.words)}: {right[subject][0].err[-2000:]}")
            restore(kept, outputs)
        description = damaged(path, chance)
        ended, result = run_command(subject, outputs, log)
        why = verdict(path, ended, result, right[subject][1])
        where = path.relative_to(next(outputs.glob(subject.folder))).as_posix()
        kind = re.sub(r"^runs/[^/]+", "runs/*", re.sub(r"^\w+/[0-9a-f]{64}", "*/*", where))
        rows.append((f"{subject.name}: {kind}", description, why))
        if why is not None:
            print(f"UNDETECTED {subject.name}: {where}, {description}: {why}\n{ended.err[-1200:]}", flush=True)
        restore(kept, outputs)
    return rows


def restore(kept: Path, outputs: Path) -> None:
    """Have everything as it was made."""
    shutil.rmtree(outputs)
    shutil.copytree(kept, outputs)


def main() -> int:
    """Damage, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        rows = survey(options.count, options.seed, Path(folder))
    print(f"{'file':50} detected undetected")
    for kind in sorted({kind for kind, _, _ in rows}):
        whys = [why for name, _, why in rows if name == kind]
        print(f"{kind:50} {whys.count(None):8} {len(whys) - whys.count(None):10}")
    print("not damaged, since no command reads them:")
    for name, what in NOT_READ.items():
        print(f"  {name}: {what}")
    missed = sum(why is not None for _, _, why in rows)
    print(f"{len(rows)} damages, {missed} undetected, {time.monotonic() - started:.0f} s")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
