"""Measure on this machine what scripts/scale.py assumes of a single process.

    python scripts/scale_measure.py

Prints the rate at which a batch of blocks is gathered, at which a checkpoint is written and verified, at which random
numbers of dropout are drawn, and of training steps of `backbone=gpt2_124m`, relative to that of a matrix product.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from bench_text import config_of
from scale_formulas import MODELS

from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.core.spec import Spec, Vocabulary
from warmstart.data.storage.ragged import Packed, Ragged
from warmstart.training import components
from warmstart.training.checkpoint import AtomicCheckpointIO, read_checkpoint

TOKENS, BLOCK, ROWS = 200_000_000, 1024, 480
ROWS_OF_STEP, TURNS = 2, 3


def seconds(work: Callable[[], object], turns: int = TURNS) -> float:
    """Return the median processor time of this process, which other programs hardly change, after one turn."""
    found = []
    for _ in range(turns + 1):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return median(found[1:])


def gathered() -> float:
    """Return tokens a second of gathering batches of random blocks from a memory map of token ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "values.npy"
        np.save(path, np.random.default_rng(0).integers(0, 50_257, TOKENS, dtype=np.uint16))
        values = np.load(path, mmap_mode="r")
        packed = Packed(Ragged(values, np.array([0, TOKENS]), np.array([TOKENS]), 0, TOKENS), BLOCK)
        rows = torch.randint(len(packed), (ROWS,))
        return ROWS * BLOCK / seconds(lambda: packed.padded(rows))


def checkpoint() -> tuple[float, float]:
    """Return bytes a second of writing a checkpoint of 400 MB, and of reading it with its checksum."""
    state = {str(number): torch.randn(10_000_000) for number in range(10)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.ckpt"
        written = seconds(lambda: AtomicCheckpointIO().save_checkpoint(state, path))
        size = path.stat().st_size
        return size / written, size / seconds(lambda: read_checkpoint(path))


def step() -> tuple[float, float]:
    """Return FLOP a second of a training step in bfloat16 with one thread, and of a matrix product of its shape."""
    torch.set_num_threads(1)
    model = MODELS["124M"]
    spec = Spec("text", (model.context,), vocabulary=Vocabulary(50_257, padding=0))
    config = config_of("stage=pretrain", "experiment=shakespeare", "backbone=gpt2_124m", "optimizer=adamw")
    backbone = components.build_seeded(config.backbone, 0, "backbone", spec=spec)
    loss = components.build_loss(config)
    objective = components.build_seeded(config.objective, 0, "head", backbone=backbone, spec=spec, loss=loss)
    found = {id(value): value for value in [*backbone.parameters(), *objective.parameters()]}
    count = sum(value.numel() for value in found.values())
    assert count == model.parameters, (count, model.parameters)
    optimizer = torch.optim.AdamW(found.values())
    x = torch.randint(1, 50_257, (ROWS_OF_STEP, model.context))

    def train() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            objective.step(backbone, Batch(x)).loss.backward()
        optimizer.step()

    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    product = 2 * 2048**3 / seconds(lambda: a @ b, 10)
    return ROWS_OF_STEP * model.context * model.flop_per_token / seconds(train), product


def main() -> None:
    """Measure and print."""
    screen.say(f"gathering of blocks: {gathered() / 1e6:.1f} million tokens a processor second")
    written, read = checkpoint()
    screen.say(f"checkpoint: written {written / 1e9:.2f}, read {read / 1e9:.2f} GB a processor second")
    trained, product = step()
    screen.say(f"step of gpt2_124m: {trained / 1e9:.1f} GFLOP/s, {trained / product:.0%} of a matrix product")
    model = MODELS["124M"]
    screen.say(f"that is {trained / model.flop_per_token:.1f} tokens a processor second")


if __name__ == "__main__":
    main()
