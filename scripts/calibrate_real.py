"""Check verdicts of real runs against known truth: A/A comparisons, useless backbones, synthetic data.

python scripts/calibrate_real.py            # all parts, about 10 minutes on 2 cores
python scripts/calibrate_real.py aa         # one part: aa, sabotage or made
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from warmstart.report.runs import Run, Transfer, read_transfer
from warmstart.report.verdicts import judge

ROOT = Path(__file__).parents[1]
REPORTS, SEEDS = 20, 10
QUICK = ("transfer.budgets.converged=[]", "pretrain.snapshots=0")
Row = tuple[str, str, str, bool | None]


def transfer(*words: str, folder: Path) -> Path:
    """Run a transfer by its command line; return its folder."""
    command = [sys.executable, str(ROOT / "train.py"), "stage=transfer", f"output_dir={folder}", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (run,) = folder.glob("transfer/*/*/run.json")
    return run.parent


def against_itself(whole: Transfer, number: int) -> Transfer:
    """The number-th report of each arm against itself: ten of its seeds and ten others, paired as they come."""
    first = number * 2 * SEEDS
    runs: list[Run] = []
    for run in whole.runs:
        place = run.seed - first
        if 0 <= place < 2 * SEEDS:
            again = "" if place < SEEDS else " again"
            runs.append(replace(run, arm=run.arm + again, seed=first + place % SEEDS))
    arms = {arm: {"against": f"{arm} again"} for arm in whole.arms} | {f"{arm} again": {} for arm in whole.arms}
    rules = {**whole.rules, "arms": list(arms), "budgets": {"steps": list(arms)}}
    return replace(whole, config={**whole.config, "arm": arms, "transfer": rules}, runs=runs)


def aa(folder: Path) -> Iterator[Row]:
    """Arms against themselves under other seeds: claims in at most 1 of 20 reports."""
    seeds = 2 * SEEDS * REPORTS
    words = ("transfer.arms=[pretrained,scratch]", "transfer.labels=[1,20]", f"transfer.seeds={seeds}")
    whole = read_transfer(transfer(*words, *QUICK, folder=folder))
    reports = [judge(against_itself(whole, number)) for number in range(REPORTS)]
    claims = sum(any(row["verdict"] in ("helps", "hurts") for row in rows) for rows in reports)
    rows = [row for rows in reports for row in rows]
    covered = sum(row["interval"][0] <= 0 <= row["interval"][1] for row in rows)
    yield "A/A on digits, reports with a claim", "at most 1 of 20", f"{claims} of {len(reports)}", claims <= 1
    shown = f"{covered} of {len(rows)}"
    yield "A/A on digits, 95 % intervals that hold 0 (one test split)", "shown only", shown, None


def words_of(folder: Path, arm: str) -> list[str]:
    """The verdicts on an arm, by labels."""
    report = json.loads((folder / "report.json").read_text())
    return [
        f"{row['verdict']} at {row['labels']}" for row in report["verdicts"] if row["arm"] == arm and not row["role"]
    ]


def sabotage(folder: Path) -> Iterator[Row]:
    """Backbones that know nothing: shuffled weights, and a pretraining on noise. Never helps."""
    for seed in (0, 1000, 2000):
        words = ("transfer.arms=[pretrained,scratch,shuffled]", f"seed={seed}")
        found = words_of(transfer(*words, *QUICK, folder=folder / f"shuffled{seed}"), "shuffled")
        yield f"digits, shuffled weights, seed={seed}", "never helps", ", ".join(found), not helps(found)
    noise = folder / "noise"
    rng = np.random.default_rng(0)
    for number in range(1200):
        place = noise / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 17, (8, 8), dtype=np.uint8)).save(place / f"{number}.png")
    words = ("data@pretrain.data=image_folder", f"pretrain.data.root={noise}", "pretrain.data.size=8")
    words += ("pretrain.data.channels=1", "transfer.arms=[pretrained,scratch]")
    found = words_of(transfer(*words, *QUICK, folder=folder / "on_noise"), "pretrained")
    yield "digits, pretrained on noise", "never helps", ", ".join(found), not helps(found)


def made(folder: Path) -> Iterator[Row]:
    """Vectors whose generic targets share the task's directions, or none of them."""
    arms = "transfer.arms=[pretrained,scratch]"
    found = words_of(transfer("experiment=vectors", arms, *QUICK, folder=folder / "shared"), "pretrained")
    yield "vectors, shared directions", "helps", ", ".join(found), helps(found)
    words = ("experiment=transfer_conflict", arms, "transfer.budgets.converged=[]", "pretrain.snapshots=6")
    place = transfer(*words, folder=folder / "conflict")
    found = words_of(place, "pretrained")
    yield "transfer_conflict, trained long", "hurts", ", ".join(found), any(word.startswith("hurts") for word in found)
    length = json.loads((place / "report.json").read_text())["pretraining_length"]
    named = length["turning_step"] is not None
    yield "transfer_conflict, by pretraining length", "a turning point", length["sentence"], named


def helps(verdicts: list[str]) -> bool:
    """Whether any of them is a claim of help."""
    return any(word.startswith("helps") for word in verdicts)


PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {"aa": aa, "sabotage": sabotage, "made": made}


def main() -> int:
    """Run the parts asked for; leave with 1 where a truth was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[])
    chosen = parser.parse_args().parts or list(PARTS)
    print("| truth | should be | was | |\n| --- | --- | --- | --- |")
    missed = 0
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for what, wanted, was, holds in PARTS[name](Path(folder) / name):
                missed += holds is False
                word = {True: "holds", False: "missed", None: ""}[holds]
                print(f"| {what} | {wanted} | {was} | {word} |", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
