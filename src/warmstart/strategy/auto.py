"""Race strategies and learning rates on the training labels alone, and take the winner."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple

from scipy import stats

from warmstart.core.errors import UserError
from warmstart.core.protocols import Strategy
from warmstart.core.ranges import Positive

SAFE = ("lp_ft", "full")  # what is taken where validation cannot tell; the second where the first cannot train
KEPT = 4  # one in so many goes on to the next rung
LAST = 2 / 3  # of the cost goes to the last rung, whose jobs should be as long as can be
FOLDS = 3  # that rungs are measured on
LARGEST = 2000  # rows of a fold: of many, more say little more
CONFIDENCE = 0.9
SHORT = 16  # steps below which a run is not worth a race
LEAST = 4  # steps of a job


class Entry(NamedTuple):
    """What races: a strategy, at a multiple of optimizer.lr."""

    strategy: str
    rate: float


class Rung(NamedTuple):
    """`size` entries are trained for `steps` on the training part of each of these folds, and measured on the fold."""

    size: int
    folds: tuple[int, ...]
    steps: int


class Decision(NamedTuple):
    """What was taken, why in words, and the paired gains of `other` over `safe` that this rests on, if any."""

    entry: Entry
    why: str
    gain: dict[str, Any] | None = None


Affordable = Callable[[float], int]
Measure = Callable[[Rung, list[Entry]], Mapping[Entry, "list[float] | None"]]


class Auto(Strategy):
    """Successive halving over entries, then one comparison of the best with the safe choice.

    A stage has it race and continues with the strategy that was taken. A rung gives each entry some
    steps and keeps the best quarter; two thirds of the cost go to the last rung, where the best entry of lp_ft meets
    the best entry of any other strategy on the same folds. The rule, fixed before it was measured: the other one is
    taken only if the lower end of a one-sided 90 % interval of its mean gain is above 0; else lp_ft, or full where
    lp_ft cannot train. The interval is that of a t test whose variance is corrected for folds sharing training rows.

    Sources: Jamieson and Talwalkar (2016), "Non-stochastic Best Arm Identification and Hyperparameter Optimization",
    https://arxiv.org/abs/1502.07943; Nadeau and Bengio (2003), "Inference for the Generalization Error".

    Args:
        options: strategies by name.
        candidates: names of those that race.
        rates: multiples of optimizer.lr that each of them is tried at.
        cost: examples that the whole race trains on, as a multiple of those of the run itself, at most.
    """

    races: ClassVar = True
    measured: ClassVar = FOLDS

    def __init__(self, options: dict[str, Any], candidates: list[str], rates: list[Positive], cost: Positive = 3.0):
        able = [name for name, strategy in options.items() if not strategy.races]
        for name in candidates:
            if name not in able:
                raise UserError(f"strategy.candidates: there is no {name}; there are: {', '.join(able)}")
        if not candidates or len(set(candidates)) < len(candidates):
            raise UserError(f"strategy.candidates={candidates}: give different names, of {', '.join(able)}")
        if not rates or len(set(rates)) < len(rates):
            raise UserError(f"strategy.rates={rates}: give different multiples of optimizer.lr, such as [0.3,1,3]")
        self.candidates, self.cost = candidates, cost
        self.rates = sorted(rates, key=distance)

    def race(
        self, steps: int, examples: int, affordable: Affordable, folds: int, mode: str, measure: Measure
    ) -> Decision:
        """Race beside a run of `steps`; without a race where that is too short, or folds cannot be cut.

        Args:
            steps: those of the run itself.
            examples: that these train on.
            affordable: how many steps of the race, whose jobs have fewer rows, train on so many examples at most.
            folds: parts that the labelled rows are cut into; below 2, they cannot be.
            mode: whether more (max) or less (min) is better.
            measure: trains and measures the entries of a rung.

        Raises:
            UserError: none of them could be trained, or the cost is too little.
        """
        entries = [Entry(name, rate) for rate in self.rates for name in self.candidates]
        rungs = self.plan(steps, examples, affordable) if folds >= 2 else []
        if not rungs:
            why = "a class has one labelled row only" if folds < 2 else f"a run of {steps} steps is short"
            if len(entries) == 1:
                why = "it is the only candidate"
            safe = self.safe(entries)
            return Decision(next(entry for entry in entries if entry.strategy == safe), f"without a race, since {why}")
        entries = entries[: rungs[0].size]
        for rung, then in zip_longest(rungs, rungs[1:]):
            scores = measure(rung, entries)
            alive = ranked(scores, mode)
            if not alive:
                raise UserError(
                    "strategy=auto: no candidate could be trained; why is in race/race.csv of the run folder"
                )
            entries = self.promoted(alive, then.size) if then else alive
        return self.decide(alive, scores, mode, folds)

    def cut(self, rows: int, most: int) -> int:
        """How many folds to cut so many labelled rows into, of which no more than `most` can be."""
        return min(max(FOLDS, math.ceil(rows / LARGEST)), most)

    def plan(self, steps: int, examples: int, affordable: Affordable) -> list[Rung]:
        """The rungs beside a run as in `race`; none where that is too short, or there is nothing to choose from.

        Where the cost is too little for all rates, those farthest from 1 are left out.

        Raises:
            UserError: it is too little for one rate.
        """
        strategies = len(self.candidates)
        if steps < SHORT or strategies * len(self.rates) == 1:
            return []
        budget = self.cost * examples
        for rates in range(len(self.rates), 0, -1):
            rungs = self._rungs(budget, strategies * rates, steps, affordable)
            if all(rung.steps >= LEAST for rung in rungs):
                return rungs
        raise UserError(
            f"strategy.cost={self.cost} buys {affordable(budget)} steps beside a run of {steps}, too few for a race of "
            f"{strategies} strategies with {LEAST} steps or more each: raise it, or name fewer strategy.candidates"
        )

    def _rungs(self, budget: float, size: int, most: int, affordable: Affordable) -> list[Rung]:
        compares = len(self.candidates) > 1
        sizes = []
        while size > (2 if compares else 1):
            sizes.append(size)
            size = math.ceil(size / KEPT)
        last = budget * (LAST if sizes else 1.0) if compares else 0.0
        share = (budget - last) / max(1, len(sizes))
        rungs = [Rung(size, (place % FOLDS,), min(most, affordable(share / size))) for place, size in enumerate(sizes)]
        if compares:
            rungs.append(Rung(2, tuple(range(FOLDS)), min(most, affordable(last / (2 * FOLDS)))))
        return rungs

    def safe(self, alive: Sequence[Entry]) -> str:
        """The strategy that is taken where validation cannot tell, of entries that train, best first."""
        names = {entry.strategy for entry in alive}
        return next((name for name in SAFE if name in names), alive[0].strategy)

    def promoted(self, alive: Sequence[Entry], size: int) -> list[Entry]:
        """The best `size`, of entries best first, among them one of the safe strategy and one of another."""
        safe = self.safe(alive)
        sides = ([entry for entry in alive if is_safe == (entry.strategy == safe)] for is_safe in (True, False))
        sure = [side[0] for side in sides if side]
        rest = [entry for entry in alive if entry not in sure]
        return sorted([*sure, *rest][:size], key=alive.index)

    def decide(
        self, alive: Sequence[Entry], scores: Mapping[Entry, Sequence[float]], mode: str, folds: int
    ) -> Decision:
        """Hold the best entry of another strategy against the best of the safe one.

        Args:
            alive: the entries of the last rung that train, best first.
            scores: theirs, one per fold.
            mode: whether more (max) or less (min) is better.
            folds: parts that the rows were cut into.
        """
        safe = self.safe(alive)
        own = next(entry for entry in alive if entry.strategy == safe)
        other = next((entry for entry in alive if entry.strategy != safe), None)
        if other is None:
            return Decision(own, "no other strategy could be trained, or is a candidate")
        sign = 1 if mode == "max" else -1
        gains = [sign * (theirs - ours) for theirs, ours in zip(scores[other], scores[own], strict=True)]
        mean, low = statistics.fmean(gains), lower_end(gains, 1 / (folds - 1))
        where = f"on each of {len(gains)} folds" if low is None else f"on average over {len(gains)} folds"
        sure = "" if low is None else f", {low:+.3g} or more with 90 % confidence"
        said = f"{other.strategy} against {safe}: {mean:+.3g} {where}{sure}"
        gain = {"of": other._asdict(), "over": own._asdict(), "by_fold": gains, "mean": mean, "low": low}
        if low is not None and low > 0:
            return Decision(other, said, gain)
        return Decision(own, f"validation cannot tell that another is better ({said})", gain)


def distance(rate: float) -> float:
    """How far a multiple is from 1."""
    return abs(math.log(rate))


def ranked(scores: Mapping[Entry, Sequence[float] | None], mode: str) -> list[Entry]:
    """Entries that have scores, best mean first; of equal ones that at the rate nearest to 1."""
    sign = -1 if mode == "max" else 1
    able = [entry for entry, values in scores.items() if values is not None]
    return sorted(able, key=lambda entry: (sign * statistics.fmean(scores[entry]), distance(entry.rate)))


def lower_end(gains: Sequence[float], ratio: float) -> float | None:
    """The lower end of the one-sided interval of a mean gain over folds.

    None where it cannot be told: from one gain, or from gains that are all equal, as those of few rows happen to be.

    Args:
        gains: one per fold.
        ratio: rows that validate over rows that train.
    """
    spread = statistics.stdev(gains) if len(gains) > 1 else 0.0
    if not spread:
        return None
    quantile = stats.t.ppf(CONFIDENCE, len(gains) - 1)
    return statistics.fmean(gains) - float(quantile) * spread * math.sqrt(1 / len(gains) + ratio)
