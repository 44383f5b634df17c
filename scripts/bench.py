"""Compare the speed of warmstart, a plain PyTorch loop, and Lightning with its defaults, as ratios.

The arms of a comparison alternate, so that another process on the machine slows all of them; a ratio is the median
over the turns of the ratio within one turn. Absolute times are printed for orientation only.

Run it with `make bench`. To add a bench, write a function that returns `Result`s and append it to `BENCHES`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import truediv
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset, TensorDataset

from warmstart import main as command_line
from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.core.spec import Spec
from warmstart.data.datamodule import GenericDataModule, TaskDataModule
from warmstart.data.loader import GatherLoader
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.transforms.augment import Augment
from warmstart.data.transforms.images import Shift
from warmstart.run.folder import RunFolder
from warmstart.training import components
from warmstart.training.assemble import build_module, build_strategy
from warmstart.training.memory import keep_freed_memory
from warmstart.training.schedule import cosine
from warmstart.training.session import Session

ROOT = Path(__file__).parents[1]
WARM_UP = 10
SEED = 0


@dataclass(frozen=True)
class Result:
    """One line of the table; the goal is a bound on the ratio, `most` or at least."""

    what: str
    times: str
    ratio: float
    goal: float | None = None
    most: bool = True

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        verdict = ("-", "-")
        if self.goal is not None:
            met = self.ratio <= self.goal if self.most else self.ratio >= self.goal
            verdict = (f"{'at most' if self.most else 'at least'} {self.goal:g}", "met" if met else "missed")
        return self.what, self.times, f"{self.ratio:.2f}", *verdict


def take_turns(arms: dict[str, Callable[[], float]], turns: int) -> dict[str, list[float]]:
    """Each arm's measurements, one per turn, after a turn that does not count."""
    rounds = [{name: arm() for name, arm in arms.items()} for _ in range(turns + 1)][1:]
    return {name: [measured[name] for measured in rounds] for name in arms}


@contextlib.contextmanager
def unseen() -> Iterator[Path]:
    """A temporary folder, and nothing printed: bars are drawn, but into memory."""
    out, err = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with screen.quiet(), out, err, tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def watch(backbone: nn.Module) -> Callable[[], float]:
    """A function to call at the end: seconds per training step, between forward passes, without the first few."""
    times: list[float] = []
    backbone.register_forward_pre_hook(lambda module, _: times.append(time.perf_counter()) if module.training else None)
    return lambda: (times[-1] - times[WARM_UP]) / (len(times) - 1 - WARM_UP)


class Job:
    """One epoch of `steps` batches on generic vectors, the same in every arm: model, weights, optimizer, schedule."""

    def __init__(self, stage: str, hidden: list[int], batch: int, steps: int, optimizer: str):
        words = f"stage={stage} experiment=vectors optimizer={optimizer} scheduler=cosine trainer.accelerator=cpu"
        words += f" data.batch_size={batch} data.rows={round(batch * steps / 0.7)} trainer.max_epochs=1"
        words += " init=scratch data.labels_per_class=null" if stage == "finetune" else ""
        with initialize_config_dir(version_base="1.3", config_dir=str(command_line.CONF)):
            self.config = compose("train", overrides=[f"backbone.hidden={hidden}", *words.split()])
        kind = TaskDataModule if stage == "finetune" else GenericDataModule
        target = components.get_object(self.config.objective._target_).target
        self.data = kind(components.build_source(self.config), target, batch, SEED).prepare()
        x, y = self.data.parts["train"]
        self.tensors = self.data.preprocessor(x), y

    def model(self, loss: Callable[..., Tensor] | None = None) -> tuple[Any, Any, Callable[[], float]]:
        """A backbone and its objective with fresh weights, and the watch on them; the bare loss function by default."""
        loss = loss or components.get_object(self.config.objective._target_).default_loss
        facts = {"spec": self.data.spec}
        facts["backbone"] = backbone = components.build_seeded(self.config.backbone, SEED, "backbone", **facts)
        objective = components.build_seeded(self.config.objective, SEED, "head", **facts, loss=loss)
        return backbone, objective, watch(backbone)

    def optimization(self, parameters: Iterable[nn.Parameter], steps: int) -> tuple[Optimizer, LambdaLR]:
        """As one writes it by hand: all parameters in one group."""
        optimizer = components.build_function(self.config.optimizer)(parameters)
        return optimizer, LambdaLR(optimizer, lambda step: cosine(step, steps))

    def warmstart(self) -> float:
        """A run as the stages start it, with its record, logs, curves and checkpoints."""
        config = self.config
        backbone, objective, seconds = self.model(components.build_loss(config))
        strategy = build_strategy(config, backbone) if config.stage == "finetune" else None
        module = build_module(config, backbone, objective, self.data.preprocessor, strategy)
        with unseen() as folder, Session(RunFolder.create(config, folder), config, module, self.data) as session:
            session.fit()
            session.conclude()
        return seconds()

    def plain(self) -> float:
        """The loop one writes by hand."""
        backbone, objective, seconds = self.model()
        x, y = self.tensors
        order = torch.randperm(len(x)).split(self.data.batch_size)
        optimizer, schedule = self.optimization([*backbone.parameters(), *objective.parameters()], len(order))
        for rows in order:
            loss = objective.step(backbone, Batch(x.index_select(0, rows), y.index_select(0, rows))).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return seconds()

    def bare(self) -> float:
        """Lightning with everything switched off: what its loop costs by itself."""
        backbone, objective, seconds = self.model()
        module = BareModule(backbone, objective, self.optimization)
        off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        with unseen() as folder:
            loader = GatherLoader(*self.tensors, self.data.batch_size, SEED)
            pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder, **off).fit(module, loader)
        return seconds()

    def lightning(self) -> float:
        """Lightning as it comes: its logger, progress bar and checkpoints, and a DataLoader over a TensorDataset."""
        backbone, objective, seconds = self.model()
        loader = DataLoader(TensorDataset(*self.tensors), self.data.batch_size, shuffle=True)
        module = DefaultModule(backbone, objective, self.optimization)
        with unseen() as folder:
            pl.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=folder).fit(module, loader)
        return seconds()


class DefaultModule(pl.LightningModule):
    """The module one writes after Lightning's own examples."""

    def __init__(self, backbone: nn.Module, objective: nn.Module, optimization: Callable[..., Any]):
        super().__init__()
        self.backbone, self.objective, self.optimization = backbone, objective, optimization

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The loss, logged every step."""
        loss = self.objective.step(self.backbone, Batch(*batch)).loss
        self.log("train/loss", loss, on_step=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """A schedule per step."""
        optimizer, schedule = self.optimization(self.parameters(), int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class BareModule(DefaultModule):
    """The same, logging nothing."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss."""
        return self.objective.step(self.backbone, batch).loss


def bench_steps() -> Iterator[Result]:
    """Time per training step, for a model whose step is long and for one whose step is nearly nothing."""
    sizes = (("long", [1024] * 2, 240, 60, "adamw", 1.05), ("short", [64], 64, 800, "sgd", 1.8))
    for size, hidden, batch, steps, optimizer, goal in sizes:
        for stage in ("pretrain", "finetune"):
            job = Job(stage, hidden, batch, steps, optimizer)
            arms = {"plain": job.plain, "warmstart": job.warmstart, "bare Lightning": job.bare}
            times = take_turns({**arms, "default Lightning": job.lightning}, 5)
            plain = times.pop("plain")
            for arm, own in times.items():
                pair = f"{1e3 * median(own):.3g} : {1e3 * median(plain):.3g} ms"
                limit = goal if arm == "warmstart" else None
                yield Result(f"{size} {stage} step, {arm} : plain loop", pair, median(map(truediv, own, plain)), limit)


class OneByOne(Dataset):
    """The usual image data set: pad, crop, flip and scale one array at a time."""

    def __init__(self, images: np.ndarray, shift: int):
        self.images, self.shift = images, shift
        self.mean = self.std = np.full((3, 1, 1), 127.5, np.float32)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image, (height, width) = self.images[index], self.images.shape[2:]
        padded = np.pad(image, ((0, 0), (self.shift,) * 2, (self.shift,) * 2))
        top, left = np.random.randint(0, 2 * self.shift + 1, 2)
        image = padded[:, top : top + height, left : left + width]
        if np.random.rand() < 0.5:
            image = image[:, :, ::-1]
        return torch.from_numpy((image - self.mean) / self.std)


def per_second(batches: Iterable[Tensor]) -> float:
    """Samples per second, from the second batch on: workers have started by then."""
    started = count = 0
    for batch in batches:
        count += len(batch) if started else 0
        started = started or time.perf_counter()
    return count / (time.perf_counter() - started)


def bench_input() -> Iterator[Result]:
    """Samples per second of the input path with shifts and flips, on 8-bit images of 3 x 32 x 32 pixels."""
    batch, shift = 256, 4
    images = np.random.default_rng(SEED).integers(0, 256, (40 * batch, 3, 32, 32), dtype=np.uint8)
    preprocessor = Preprocessor()
    preprocessor.fit(images)
    encoded = preprocessor.encode(images)
    augment = Augment(preprocessor, {"shift": Shift(shift, flip=True)})

    one_by_one = OneByOne(images, shift)
    ours = GatherLoader(encoded, None, batch, SEED)
    arms = {
        "warmstart": lambda: per_second(augment(item.x) for _ in range(8) for item in ours),
        "no workers": lambda: per_second(DataLoader(one_by_one, batch, shuffle=True)),
        "2 workers": lambda: per_second(DataLoader(one_by_one, batch, shuffle=True, num_workers=2)),
    }
    rates = take_turns(arms, 7)
    fast = rates.pop("warmstart")
    for name, slow in rates.items():
        pair = f"{median(fast):,.0f} : {median(slow):,.0f} /s"
        yield Result(f"input path, warmstart : DataLoader, {name}", pair, median(map(truediv, fast, slow)), 20, False)


def masked_step(words: str, batch: int = 64, steps: int = 10) -> Callable[[], float]:
    """A function that gives the seconds of a training step on a batch of 3 x 32 x 32 pixels in 4 x 4 patches."""
    with initialize_config_dir(version_base="1.3", config_dir=str(command_line.CONF)):
        config = compose("train", overrides=["stage=pretrain", "backbone=vit", *words.split()])
    spec = Spec("image", (3, 32, 32))
    backbone = components.build_seeded(config.backbone, SEED, "backbone", spec=spec)
    loss = components.build_loss(config)
    objective = components.build_seeded(config.objective, SEED, "head", backbone=backbone, spec=spec, loss=loss)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()])
    x = torch.randn(batch, *spec.shape)

    def seconds() -> float:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad()
            objective.step(backbone, Batch(x)).loss.backward()
            optimizer.step()
        return (time.perf_counter() - started) / steps

    return seconds


def bench_masked() -> Iterator[Result]:
    """A masked autoencoder's step beside one whose backbone computes all positions, three quarters hidden in both."""
    words = {"ours": "objective=masked_autoencoder", "complete": "objective=masked"}
    times = take_turns({name: masked_step(f"{word} objective.ratio=0.75") for name, word in words.items()}, 7)
    pair = " : ".join(f"{1e3 * median(times[name]):.3g}" for name in words) + " ms"
    ratio = median(map(truediv, times["ours"], times["complete"]))
    yield Result("masked autoencoder's step : with all positions", pair, ratio, 0.5)


def step_seconds(folder: Path, words: str) -> float:
    """Seconds per training step of a command in a process of its own, from the record of its run."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        command = [sys.executable, str(ROOT / "train.py"), *words.split(), f"output_dir={output}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        (path,) = Path(output).glob("pretrain/*/*/run.json")
        return json.loads(path.read_text())["cost"]["step_seconds"]


def bench_processes() -> Iterator[Result]:
    """A training step of two processes beside that of one, each with one thread, on the same batch of characters."""
    words = "stage=pretrain experiment=shakespeare optimizer=adamw data.batch_size=32 logger=[] visualization=[]"
    words += " feature_rows=0 trainer.accelerator=cpu trainer.max_steps=30 trainer.val_check_interval=30"
    words += " trainer.limit_val_batches=1"
    with unseen() as folder:
        arms = {count: partial(step_seconds, folder, f"{words} trainer.devices={count}") for count in (1, 2)}
        times = take_turns(arms, 3)
    pair = f"{1e3 * median(times[2]):.3g} : {1e3 * median(times[1]):.3g} ms"
    ratio = median(map(truediv, times[2], times[1]))
    yield Result("step of 2 processes : of 1, 32 x 129 characters", pair, ratio)


BENCHES = (bench_steps, bench_input, bench_masked, bench_processes)


def main() -> None:
    """Run every bench and print one table."""
    keep_freed_memory()  # build_trainer does this for the process, so every arm has it from the start
    rows = [result.cells() for bench in BENCHES for result in bench()]
    screen.table(f"CPU, {torch.get_num_threads()} threads", ("what", "measured", "ratio", "goal", ""), rows)


if __name__ == "__main__":
    main()
