"""Kill runs of every stage at write points and random moments, resume them, and compare with uninterrupted runs.

    python scripts/survive.py                    # 200 kills over all recipes and stages (25 minutes on two cores)
    python scripts/survive.py digits lora        # these recipes only; `sweep` and `start` start separate processes
    python scripts/survive.py --kills 40 --seed 1

A write point is a change on the disk (scripts/kills/points.py); the signal is SIGKILL, SIGTERM or SIGINT. After each
kill all readers must report the run as interrupted, and `python train.py resume=PATH` resumes it. At the end the folder
must equal that of the uninterrupted run: weights, record, logs, events, tables; without temporary files or locks.
Prints a table of recipes and stages, and each difference with the kills before it. Exits with 1 if
there are any.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.kills import sweeps
from scripts.kills.chain import Result, harass
from scripts.kills.command import SIGNALS, Command, Ended, Kill, preload
from scripts.kills.scenarios import RECIPES, SCENARIOS, Scenario, make_parents, run_folder

LONGEST_CHAIN = 3  # kills of one run
START_SHARE, SWEEP_SHARE = 0.05, 0.02  # of all kills
EARLY = 0.2  # seconds


def main() -> int:
    """Run the campaign and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join([*RECIPES, 'sweep', 'start'])}")
    parser.add_argument("--kills", type=int, default=200, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of points, moments and signals")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
    chosen = options.recipes or [*RECIPES, "sweep", "start"]
    if unknown := set(chosen) - {*RECIPES, "sweep", "start"}:
        parser.error(f"there is no recipe {', '.join(sorted(unknown))}")
    scenarios = [scenario for scenario in SCENARIOS if scenario.recipe in chosen]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = campaign(scenarios, Path(folder), options.kills, options.seed, chosen)
    return report(results, time.monotonic() - started)


def campaign(
    scenarios: Sequence[Scenario], folder: Path, kills: int, seed: int, chosen: Sequence[str] = ()
) -> list[Result]:
    """Run everything, as many chains at a time as there are cores; return what came of each."""
    folder = folder.resolve()
    preload()
    moments, results = random.Random(seed), []
    own = {"start": max(3, round(START_SHARE * kills)), "sweep": max(2, round(SWEEP_SHARE * kills))}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as pool:
        places = pool.submit(make_parents, folder / "parents", list(scenarios)).result()
        calm = [pool.submit(undisturbed, one, folder / f"calm{n}", places) for n, one in enumerate(scenarios)]
        ended = [future.result() for future in calm]
        chains = [
            pool.submit(
                one_chain, scenarios[n], folder / f"chain{number}", folder / f"calm{n}", places, kills, number == n
            )
            for number, (n, kills) in enumerate(plan(ended, kills if scenarios else 0, moments))
        ]
        if "start" in chosen:
            chains.append(pool.submit(sweeps.harass_start, folder / "start", own["start"], moments))
        if "sweep" in chosen:
            for one in sweeps.SWEEPS:
                chains.append(pool.submit(sweeps.harass, one, folder / f"sweep {one.name}", own["sweep"], moments))
        for number, future in enumerate(as_completed(chains), 1):
            results.append(result := future.result())
            for line in (*result.different, *result.stuck):
                print(f"{result.scenario.recipe} {result.scenario.name}: {line}", flush=True)
            if number % 10 == 0:
                print(f"{number} of {len(chains)} runs, {sum(one.kills for one in results)} kills", flush=True)
    return results


def undisturbed(scenario: Scenario, folder: Path, places: dict[str, str]) -> Ended:
    """Run a scenario undisturbed."""
    ended = Command(folder, scenario.arguments(places)).wait()
    if ended.status:
        raise RuntimeError(f"{scenario.recipe} {scenario.name} ended with {ended.status}: {ended.output[-2000:]}")
    return ended


def plan(calm: Sequence[Ended], kills: int, moments: random.Random) -> Iterator[tuple[int, list[Kill]]]:
    """Choose chains of kills, the scenarios in turn; two of three are at a point, of each kind as often."""
    turn = 0
    while kills > 0:
        number = turn % len(calm)
        chain = [kill_of(calm[number], moments) for _ in range(min(kills, moments.randint(1, LONGEST_CHAIN)))]
        yield number, chain
        kills, turn = kills - len(chain), turn + 1


def kill_of(ended: Ended, moments: random.Random) -> Kill:
    """Choose a kill of a command that takes as long and comes to the same points as an undisturbed one."""
    number = moments.choice([SIGNALS[0], *SIGNALS[:3]])
    if moments.random() < 1 / 3:
        return Kill(number, seconds=moments.uniform(0, moments.choice([EARLY, ended.seconds, ended.seconds])))
    kinds: dict[str, list[int]] = {}
    for point, line in enumerate(ended.points, 1):
        kinds.setdefault(kind_of(line), []).append(point)
    return Kill(number, point=moments.choice(kinds[moments.choice(sorted(kinds))]))


def kind_of(line: str) -> str:
    """Return what a point is, without its number, and of which file, without the parts of its name that vary."""
    what, _, path = line.partition(" ")[2].rpartition(" ")
    name = re.sub(r"^\.(.+)\.[0-9a-f]{8}\.tmp$", r"\1", path.rpartition("/")[2])
    return f"{what} {'event file' if 'tfevents' in name else name}"


def one_chain(
    scenario: Scenario, folder: Path, calm: Path, places: dict[str, str], kills: list[Kill], rival: bool
) -> Result:
    """Kill and continue one run; its folder is kept where something is wrong."""
    result = harass(scenario, folder, run_folder(calm), places, kills, rival)
    if not result.different and not result.stuck:
        shutil.rmtree(folder)
    return result


def report(results: Sequence[Result], seconds: float) -> int:
    """Print the table; 1 where something differs or cannot be continued."""
    print(f"{'recipe':10}{'stage':14}{'kills':>7}{'resumes':>9}{'different':>11}{'stuck':>7}")
    rows = list(dict.fromkeys((result.scenario.recipe, result.scenario.name) for result in results))
    order = {(one.recipe, one.name): number for number, one in enumerate(SCENARIOS)}
    total = [0, 0, 0, 0]
    for row in sorted(rows, key=lambda row: order.get(row, len(order))):
        own = [result for result in results if (result.scenario.recipe, result.scenario.name) == row]
        bad = (sum(bool(one.different) for one in own), sum(bool(one.stuck) for one in own))
        counts = [sum(one.kills for one in own), sum(one.resumes for one in own), *bad]
        total = [sum(pair) for pair in zip(total, counts)]
        print(f"{row[0]:10}{row[1]:14}{counts[0]:7}{counts[1]:9}{counts[2]:11}{counts[3]:7}")
    print(f"{'all':24}{total[0]:7}{total[1]:9}{total[2]:11}{total[3]:7}   {seconds:.0f} s")
    return 1 if total[2] or total[3] else 0


if __name__ == "__main__":
    sys.exit(main())
