"""Run command lines with invalid settings and count: refused with a short message, accepted for a reason, or a defect.

    python scripts/abuse.py                   # all (minutes)
    python scripts/abuse.py --only loss       # command lines whose overrides match the pattern
    python scripts/abuse.py --list            # print the command lines without running them

Each runs in this process until a run folder would be created. Accepted command lines that train on digits with huge
numbers, and some others, are then run for one step. Lists the defects; the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.abuse_lines.by_hand import by_hand
from scripts.abuse_lines.lines import Line, systematic

EVERY_TRAINING = 6


def main() -> int:
    """Run the lines and print the counts, what was accepted, and the defects."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a pattern of the words")
    parser.add_argument("--list", action="store_true", help="print the lines")
    parser.add_argument("--refusals", action="store_true", help="print each refusal")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "here").mkdir()
        os.chdir(folder / "here")
        lines = [*systematic(folder), *by_hand(folder)]
        lines = [line for line in lines if re.search(options.only, " ".join(line.words))]
        if options.list:
            for line in lines:
                print(" ".join(line.words))
            print(f"{len(lines)} lines")
            return 0
        return report(lines, folder, options.refusals)


def trains(line: Line) -> bool:
    """Whether a line trains on digits, the quickest."""
    is_training = line.words[0] in ("stage=finetune", "stage=pretrain")
    return is_training and not any(word.startswith(("experiment=", "trainer.max_time")) for word in line.words)


def breaks_late(line: Line) -> bool:
    """Whether a line's value can break only while training."""
    return line.change.startswith("huge") or line.key.endswith("precision") or line.change == "by hand"


def report(lines: list[Line], folder: Path, refusals: bool) -> int:
    """Run the lines and print what came of them; return the exit status."""
    from scripts.abuse_lines.runner import call, short

    started, counts, defects = time.monotonic(), Counter(), []
    trainings = 0
    accepted: dict[str, list[str]] = defaultdict(list)
    outputs = folder / "outputs"
    for line in lines:
        seen = call(line.words, outputs, wholly=line.wholly)
        reason = line.reason()
        if seen.kind == "accepted" and reason is None:
            seen.kind, seen.message = "defect", "accepted"
        if seen.kind == "refused" and line.right:
            seen.kind, seen.message = "defect", f"refused: {seen.message}"
        if seen.kind == "accepted" and trains(line):
            trainings += 1
            if breaks_late(line) or trainings % EVERY_TRAINING == 0:
                run = call(short(line), outputs, runs=True)
                counts["run for a step"] += 1
                seen = run if run.kind == "defect" else seen
        shutil.rmtree(outputs, ignore_errors=True)
        counts[seen.kind] += 1
        if seen.kind == "accepted":
            accepted[reason].append(f"{line.key} {line.change}".strip())
        if seen.kind == "defect":
            defects.append(f"{' '.join(line.words)}\n    {seen.message}")
            print(f"defect: {defects[-1]}\n", flush=True)
        if refusals and seen.kind == "refused":
            print(f"{' '.join(line.words)}\n    {seen.message}")
    print(f"{len(lines)} lines in {time.monotonic() - started:.0f} s: {dict(counts)}")
    for reason, found in sorted(accepted.items()):
        print(f"\naccepted, {reason} ({len(found)}):\n    {', '.join(sorted(set(found)))}")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
