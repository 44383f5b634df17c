"""Compare text pretraining with nanoGPT's settings and transformers.Trainer, and measure the cost of tokenization.

    python scripts/bench_text.py shakespeare   # validation loss at equal wall time, nats per character
    python scripts/bench_text.py masked        # tokens a second of pretraining, as a ratio (needs accelerate)
    python scripts/bench_text.py data          # tokens a second of tokenization, and the data time of a second run

Ratios are within one run; the arms of `masked` alternate. Run it on an idle machine.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pandas as pd
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart import main as command_line
from warmstart.core import screen
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.sources.text.film_reviews import FilmReviews
from warmstart.stages import pretrain
from warmstart.training import components
from warmstart.training.assemble import assemble
from warmstart.training.budget import Stopwatch
from warmstart.training.trainer import native_precision

TURNS, STEPS = 3, 20
BLOCK, BATCH = 128, 64


def config_of(*words: str) -> DictConfig:
    """The config that a command line composes to."""
    with initialize_config_dir(version_base="1.3", config_dir=str(command_line.CONF)):
        return compose("train", overrides=list(words))


class NanoBlock(nn.Module):
    """A block of nanoGPT's model without biases and dropout, as its CPU recipe has it."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.wide, self.narrow = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        q, k, v = self.qkv(self.norm1(x)).view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class NanoGPT(nn.Module):
    """The model of https://github.com/karpathy/nanoGPT at `--n_layer=4 --n_head=4 --n_embd=128 --block_size=64`."""

    def __init__(self, vocabulary: int, width: int = 128, depth: int = 4, heads: int = 4, context: int = 64):
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(NanoBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocabulary, bias=False)
        self.token.weight = self.head.weight
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                residual = name.endswith(("out.weight", "narrow.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth) if residual else 0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Characters (B, T) to logits (B, T, V)."""
        x = self.token(x) + self.place(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def nanogpt(steps: int = 2000, batch: int = 12, context: int = 64) -> tuple[float, float]:
    """Its published CPU recipe in a bare loop: loss over the whole validation part, and seconds of training."""
    source = components.build_source(config_of("stage=pretrain", "experiment=shakespeare")).load(None)
    train, held_out = (part.x["text"].iloc[0] for part in (source.train, source.validation))
    number = {character: index for index, character in enumerate(sorted({*train, *held_out}))}
    train, held_out = (torch.tensor([number[character] for character in text]) for text in (train, held_out))
    torch.manual_seed(1337)
    model = NanoGPT(len(number))
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) is flag] for flag in (True, False))
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    started = time.monotonic()
    for step in range(steps):
        fall = 1e-4 + 0.5 * (1 + math.cos(math.pi * (step - 100) / (steps - 100))) * 9e-4
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * step / 100 if step < 100 else fall
        starts = torch.randint(len(train) - context, (batch, 1)) + torch.arange(context + 1)
        rows = train[starts]
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    seconds = time.monotonic() - started
    rows = held_out.unfold(0, context + 1, context)
    with torch.no_grad():
        losses = [F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten()) for part in rows.split(200)]
    weights = torch.tensor([len(part) for part in rows.split(200)], dtype=torch.float)
    return float((torch.stack(losses) * weights).sum() / weights.sum()), seconds


def shakespeare(words: list[str]) -> None:
    """Ours in the time that nanoGPT's recipe takes; further words change our recipe."""
    theirs, seconds = nanogpt()
    screen.say(f"nanoGPT's recipe: {theirs:.3f} nats per character in {seconds:.0f} s of training")
    with tempfile.TemporaryDirectory() as folder:
        limits = ("trainer.max_steps=-1", f"trainer.max_time={seconds}", "visualization=[]", f"output_dir={folder}")
        run = pretrain.run(config_of("stage=pretrain", "experiment=shakespeare", *limits, *words))
        loss, cost = run.record["metrics"]["val/loss"], run.record["cost"]
    screen.say(f"experiment=shakespeare: {loss:.3f} in {seconds:.0f} s of training, {cost['steps']} steps")
    screen.say(f"difference at equal time: {loss - theirs:+.3f}; 1.65 is the bar, 1.55 the goal")


class Clock(pl.Callback):
    """The seconds of a run's training steps, validation left out."""

    def __init__(self) -> None:
        self.watch = Stopwatch()

    def on_train_batch_start(self, *args: Any) -> None:
        """Let it run."""
        self.watch.start()

    def on_validation_start(self, *args: Any) -> None:
        """Stop it."""
        self.watch.stop()


def masked(words: list[str]) -> None:
    """Tokens a second, against transformers.Trainer on a BertForMaskedLM of equal size, data and batch."""
    import transformers

    transformers.logging.set_verbosity_error()
    root = f"{os.environ['WARMSTART_DATA']}/movie_reviews"
    config = config_of(
        *("stage=pretrain", "experiment=sst2", f"data.root={root}", "visualization=[]", "objective.ratio=0.15"),
        *(f"data.batch_size={BATCH}", f"data.pack={BLOCK}", f"trainer.max_steps={STEPS}"),
        *(f"trainer.val_check_interval={STEPS}", "trainer.limit_val_batches=1", *words),
    )
    data, *_ = assemble(config)
    blocks = data.parts["train"][0].padded(slice(0, BATCH * STEPS))[0]
    size = data.spec.vocabulary.size
    bert = transformers.BertConfig(
        vocab_size=size, hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=data.preprocessor.backend_tokenizer,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    )
    rows = [{"input_ids": row} for row in blocks.tolist()]
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)

    def theirs() -> float:
        with tempfile.TemporaryDirectory() as folder:
            settings = {
                "per_device_train_batch_size": BATCH,
                "max_steps": STEPS,
                "save_strategy": "no",
            }
            mixed = native_precision("cpu") is not None
            arguments = transformers.TrainingArguments(
                folder, bf16=mixed, use_cpu=True, report_to=[], disable_tqdm=True, **settings
            )
            trainer = transformers.Trainer(
                transformers.BertForMaskedLM(bert), arguments, data_collator=collator, train_dataset=rows
            )
            return STEPS * BATCH * BLOCK / trainer.train().metrics["train_runtime"]

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config.output_dir, clock = folder, Clock()
            pretrain.run(config, callbacks=[clock])
            return STEPS * BATCH * BLOCK / clock.watch.seconds

    compare("masked pretraining", ours, theirs, 1.5)


def compare(what: str, ours: Callable[[], float], theirs: Callable[[], float], goal: float) -> None:
    """Turn by turn; the ratio is the median over the turns."""
    pairs = []
    for _ in range(TURNS + 1):
        with contextlib.redirect_stdout(io.StringIO()), screen.quiet():
            pairs.append((ours(), theirs()))
    ratio = median(a / b for a, b in pairs[1:])
    rates = [median(values) for values in zip(*pairs[1:])]
    screen.say(f"{what}: {rates[0]:,.0f} against {rates[1]:,.0f} tokens a second, {ratio:.2f} times (goal {goal})")


def data(words: list[str]) -> None:
    """The film reviews, cut by WordPiece: at first, and again."""
    frame: pd.DataFrame = FilmReviews(dict, f"{os.environ['WARMSTART_DATA']}/movie_reviews").load(None).train.x
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WARMSTART_CACHE"] = folder
        preprocessor = Preprocessor()
        preprocessor.fit(frame)
        preprocessor.untruncated(frame.iloc[:200])
        started = time.monotonic()
        tokens = len(preprocessor.untruncated(frame).values)
        rate = tokens / (time.monotonic() - started)
        started = time.monotonic()
        again = Preprocessor()
        again.fit(frame)
        again.untruncated(frame)
        seconds = time.monotonic() - started
    screen.say(f"tokenising: {rate / 1e6:.2f} million tokens a second (goal 1); a second run: {seconds:.2f} s (goal 1)")


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    chosen = sys.argv[1] if len(sys.argv) > 1 else "data"
    {"shakespeare": shakespeare, "masked": masked, "data": data}[chosen](sys.argv[2:])
