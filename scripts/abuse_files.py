"""Read about 400 unusual files and count: read correctly, refused with a short message, or a defect.

    python scripts/abuse_files.py                     # all (minutes)
    python scripts/abuse_files.py --only tables       # cases whose family or name contains the pattern
    python scripts/abuse_files.py --list              # print names and expected outcomes without running them

Each case writes files and has the overrides of the command line and the expected outcome. Most cases load the data as
finetuning does, and check classes, rows, encoded values and printed lines; many must equal a clean version of the file.
Predictions are made by complete commands. Lists each defect with the expected and the observed outcome; the exit status
is 1 if there are any.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.abuse_cases import folders, images, manifests, predictions, sounds, tables, texts
from scripts.abuse_cases.case import Case

FAMILIES = (tables, texts, images, sounds, manifests, folders, predictions)
KINDS = ("right", "refused", "defect")


def all_cases() -> list[Case]:
    """The cases of every family; names are unique in each."""
    cases = [case for family in FAMILIES for case in family.cases()]
    twice = [name for name, times in Counter((case.family, case.name) for case in cases).items() if times > 1]
    if twice:
        raise ValueError(f"two cases are called {twice[0]}")
    return cases


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a pattern of 'family: name'")
    parser.add_argument("--list", action="store_true", help="print the cases and their right outcomes")
    options = parser.parse_args()
    cases = [case for case in all_cases() if re.search(options.only, f"{case.family}: {case.name}", re.IGNORECASE)]
    if options.list:
        for case in cases:
            print(f"{case.family}: {case.name}: {case.expected()}")
        print(f"{len(cases)} cases")
        return 0
    from scripts.abuse_cases.doors import Bench

    counts, seconds, defects = defaultdict(Counter), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for case in cases:
            started = time.monotonic()
            kind, problem = bench.judge(case)
            seconds[case.family] += time.monotonic() - started
            counts[case.family][kind] += 1
            if kind == "defect":
                defects.append((case, problem.replace(folder, "")))
    print(f"{'family':14}{''.join(f'{kind:>10}' for kind in KINDS)}{'seconds':>10}")
    for family in [*counts, "all"]:
        found = sum(counts.values(), Counter()) if family == "all" else counts[family]
        spent = sum(seconds.values()) if family == "all" else seconds[family]
        print(f"{family:14}{''.join(f'{found[kind]:10}' for kind in KINDS)}{spent:10.1f}")
    for case, problem in defects:
        print(f"\n{case.family}: {case.name}\n  right: {case.expected()}\n  seen:  {problem}")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
