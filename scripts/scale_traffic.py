"""Count the bytes that processes of a training send per step, beside the formulas of scripts/scale.py.

    python scripts/scale_traffic.py            # 2, 4 and 8 processes with gloo on this CPU, a few minutes

Each training runs in a network namespace of its own, whose loopback interface has its own counters: they include the
headers of packets, and no other program. It needs `unshare` and `ip` of Linux, and permission for them.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch.distributed.fsdp import fully_shard

sys.path.insert(0, str(Path(__file__).parent))

from scale import table
from scale_formulas import FLOAT, all_reduce, ddp_step, fsdp_step, reduce_scatter

from warmstart import main as command_line
from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.core.spec import Spec, Vocabulary
from warmstart.distributed.processes import any_process
from warmstart.stages import pretrain
from warmstart.training import components

PROCESSES = (2, 4, 8)
WIDTHS = (32, 256)  # of a Transformer with 4 blocks
ROWS, BLOCK = 8, 33  # of the global batch
FIRST, LAST = 5, 15  # steps between which bytes are counted: DDP arranges its buckets in the first
VOCABULARY = 65
FLAGS = 200  # all-reduces of one number that are timed
SECONDS = 300


def config_of(width: int, folder: Path) -> DictConfig:
    """Return the config of a short pretraining on characters."""
    words = f"stage=pretrain experiment=shakespeare optimizer=adamw scheduler=constant backbone.width={width}"
    words += f" data.batch_size={ROWS} data.pack={BLOCK} trainer.max_steps={LAST + 1} trainer.precision=32"
    words += f" trainer.val_check_interval={LAST + 1} trainer.limit_val_batches=1 trainer.accelerator=cpu"
    words += f" trainer.gradient_clip_val=null logger=[] visualization=[] feature_rows=0 output_dir={folder}"
    with initialize_config_dir(version_base="1.3", config_dir=str(command_line.CONF)):
        return compose("train", overrides=words.split())


def sent() -> int:
    """Return the bytes that the loopback interface of this namespace has sent."""
    line = next(line for line in Path("/proc/self/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


class Counter(pl.Callback):
    """Counts bytes per step, and the parameters of the module."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.sizes: list[int] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: object, batch_idx: int
    ) -> None:
        """Read the counter; all processes have ended the step before, whose last operation is a collective."""
        self.counts[trainer.global_step] = sent()
        self.sizes = [value.numel() for value in pl_module.parameters() if value.requires_grad]

    def result(self) -> dict[str, object]:
        """Return bytes per step of all processes, and the sizes of the parameters."""
        return {"bytes": (self.counts[LAST] - self.counts[FIRST]) / (LAST - FIRST), "sizes": self.sizes}


def train_ddp(width: int, folder: Path) -> dict[str, object]:
    """Run the stage in this process, with the others."""
    counter = Counter()
    with screen.quiet():
        pretrain.run(config_of(width, folder), callbacks=[counter])
    return counter.result()


def train_fsdp(width: int, folder: Path) -> dict[str, object]:
    """Train the same model in a plain loop with fully_shard on the blocks and on the rest."""
    config, spec = config_of(width, folder), Spec("text", (BLOCK,), vocabulary=Vocabulary(VOCABULARY, padding=0))
    backbone = components.build_seeded(config.backbone, 0, "backbone", spec=spec)
    loss = components.build_loss(config)
    objective = components.build_seeded(config.objective, 0, "head", backbone=backbone, spec=spec, loss=loss)
    blocks = [sum(value.numel() for value in block.parameters()) for block in backbone.blocks]
    model = Whole(backbone, objective)
    total = sum(value.numel() for value in model.parameters())
    for block in backbone.blocks:
        fully_shard(block)
    fully_shard(model)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randint(0, VOCABULARY, (max(1, ROWS // dist.get_world_size()), BLOCK))
    counts = {}
    for step in range(LAST + 1):
        counts[step] = sent()
        model(x).backward()
        optimizer.step()
        optimizer.zero_grad()
        dist.barrier()  # so that the bytes of all processes belong to the same step
    return {"bytes": (counts[LAST] - counts[FIRST]) / (LAST - FIRST), "blocks": sum(blocks), "total": total}


def time_flags(width: int, folder: Path) -> dict[str, object]:
    """Return the bytes of an all-reduce of one number, of all processes, and its seconds."""
    any_process(False)
    before, started = sent(), time.perf_counter()
    for _ in range(FLAGS):
        any_process(False)
    return {"bytes": (sent() - before) / FLAGS, "seconds": (time.perf_counter() - started) / FLAGS}


class Whole(torch.nn.Module):
    """A backbone and its objective, whose output is the loss."""

    def __init__(self, backbone: torch.nn.Module, objective: torch.nn.Module):
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the loss () of tokens (B, T)."""
        return self.objective.step(self.backbone, Batch(x)).loss


KINDS = {"ddp": train_ddp, "fsdp": train_fsdp, "flag": time_flags}


def process(kind: str, width: int, count: int, number: int, folder: Path) -> None:
    """Join the others and train; the first process writes the result."""
    try:
        names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {name: str(value) for name, value in names.items()}
        dist.init_process_group("gloo", f"file://{folder / 'store'}", timedelta(seconds=SECONDS), count, number)
        result = KINDS[kind](width, folder)
        if number == 0:
            (folder / "result.json").write_text(json.dumps(result))
        dist.barrier()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def in_namespace(kind: str, width: int, count: int, folder: Path) -> None:
    """Start the processes of a training, in this network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=process, args=(kind, width, count, number, folder)) for number in range(count)]
    for one in started:
        one.start()
    for one in started:
        one.join(SECONDS)
        if one.exitcode != 0:
            sys.exit(f"a process ended with exit code {one.exitcode}")


def measure(kind: str, width: int, count: int) -> dict[str, Any]:
    """Run this script in a network namespace, and return the result of the first process."""
    with tempfile.TemporaryDirectory() as folder:
        own = [sys.executable, __file__, kind, str(width), str(count), folder]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        subprocess.run(["unshare", "--net", "--map-root-user", *own], check=True, env=environment)
        return json.loads((Path(folder) / "result.json").read_text())


def computed(kind: str, found: dict[str, Any], count: int) -> tuple[int, float]:
    """Return the number of parameters, and the bytes that a process should send per step.

    The reduce-scatter of gloo is an all-reduce of which a process keeps its part.
    """
    if kind == "ddp":
        parameters = sum(found["sizes"])
        return parameters, ddp_step(parameters, len(found["sizes"]), count)
    parameters, blocks = found["total"], found["blocks"]
    excess = all_reduce(FLOAT * parameters, count) - reduce_scatter(FLOAT * parameters, count)
    return parameters, fsdp_step(blocks, parameters - blocks, count, FLOAT) + excess


def row(kind: str, width: int, count: int) -> tuple[str, ...]:
    """Return a row of the table: measured and computed bytes that a process sends per step."""
    found = measure(kind, width, count)
    measured = found["bytes"] / count
    parameters, expected = computed(kind, found, count)
    numbers = (f"{value:,.0f}" for value in (parameters, expected, measured, measured - expected))
    return kind, str(count), *numbers, f"{measured / expected:.3f}"


def main() -> None:
    """Print the tables, in Markdown."""
    rows = [row(kind, width, count) for kind in ("ddp", "fsdp") for width in WIDTHS for count in PROCESSES]
    columns = ("", "processes", "parameters", "computed", "measured", "difference", "ratio")
    print(table(columns, rows), flush=True)
    flags = [(count, measure("flag", 0, count)) for count in PROCESSES]
    cells = [(str(count), f"{one['bytes'] / count:,.0f}", f"{1e6 * one['seconds']:,.0f}") for count, one in flags]
    print(table(("processes", "bytes per process", "microseconds"), cells))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        in_namespace(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
