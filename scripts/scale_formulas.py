"""Formulas of communication, checkpoints and data of models with the architecture of `backbone=gpt2_124m`.

What is not computed is a constant: measured, with its source, or an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass

VOCABULARY, MLP_RATIO, HEADS = 50_257, 2.6667, 12
DEVICES = (8, 64, 512)
FLOAT, HALF = 4, 2  # bytes

# Measured in processor seconds of one core of an Intel Xeon with AMX (scripts/scale_measure.py, 2026-12-01).
GATHERED = 65e6  # tokens a second that a process gathers from a memory map
WRITTEN, READ = 0.44e9, 0.59e9  # bytes a second of a checkpoint with its SHA-256
# Measured on two cores (docs/lab.md, 2026-11-25, text compared with common practice).
TOKENIZED = 1.35e6  # tokens a second
# Assumption: between machines. On one busy core, scripts/scale_traffic.py measured 225 microseconds.
HOP = 50e-6  # seconds of a message between processes with gloo

# A published measurement of other code: nanoGPT trains GPT-2 124M with 491,520 tokens a step for 600,000 steps in about
# 4 days on 8 A100 (its README.md and config/train_gpt2.py).
PUBLISHED = 491_520 * 600_000 / (4 * 86_400) / 8  # tokens a second and device
# Assumptions about hardware.
FAST = 400e12  # FLOP a second and device in training, about 40 % of the dense bf16 rate of an H100
PER_MACHINE = 8  # devices
INSIDE, BETWEEN = 450e9, 50e9  # bytes a second that a device sends in a machine (NVLink 4), and between (400 Gbit/s)
SHARED_DISK = 2e9  # bytes a second of a machine
DEVICE_MEMORY, HOST_MEMORY = 80e9, 2e12  # bytes of a device, and of a machine
# Assumptions about the training.
TOKENS_PER_PARAMETER = 20
LOSS = 0.05  # share of the time that may be lost
BACKWARD = 2 / 3  # share of a step that can overlap with the communication of gradients
TEXT_BYTES = 4.5  # bytes of raw text per token


@dataclass(frozen=True)
class Model:
    """A decoder; `batch` are the tokens of a device per step."""

    width: int
    depth: int
    context: int
    batch: int

    @property
    def block(self) -> int:
        """Number of parameters of a block."""
        return 4 * self.width**2 + 3 * self.width * round(MLP_RATIO * self.width) + 2 * self.width

    @property
    def parameters(self) -> int:
        """Number of parameters; head and token embedding are the same."""
        return self.depth * self.block + self.width + VOCABULARY * self.width

    @property
    def tensors(self) -> int:
        """Number of parameter tensors."""
        return 6 * self.depth + 2

    @property
    def flop_per_token(self) -> int:
        """FLOP of forward and backward pass: 6 per parameter, and those of attention without a causal saving."""
        return 6 * self.parameters + 12 * self.depth * self.width * self.context


MODELS = {
    "124M": Model(768, 12, 1024, 32_768),
    "1B": Model(2048, 18, 2048, 16_384),
    "7B": Model(4096, 32, 4096, 8_192),
}
SLOW = PUBLISHED * MODELS["124M"].flop_per_token  # FLOP a second
RATES = {"published": SLOW, "assumed": FAST}


def all_reduce(size: float, count: int) -> float:
    """Return the bytes that each of `count` processes sends in a ring all-reduce of `size` bytes."""
    return 2 * (count - 1) / count * size


def all_gather(size: float, count: int) -> float:
    """Return the bytes that each process sends, if the result has `size` bytes."""
    return (count - 1) / count * size


reduce_scatter = all_gather  # of `size` bytes per process


def ddp_step(parameters: int, tensors: int, count: int) -> float:
    """Return the bytes that a process sends per step of DDP.

    Gradients in float32; which tensors were used (int32); loss and number of its examples; whether to stop.
    """
    return all_reduce(FLOAT * (parameters + tensors + 2 + 1), count)


def fsdp_step(blocks: int, rest: int, count: int, gathered: int = HALF) -> float:
    """Return the bytes that a process sends per step of FSDP2.

    Weights of blocks are gathered in the forward and in the backward pass, the others once, with `gathered` bytes each;
    gradients are reduced in float32.
    """
    return all_gather(gathered * (2 * blocks + rest), count) + reduce_scatter(FLOAT * (blocks + rest), count)


def bandwidth(count: int) -> float:
    """Return the bytes a second of the slowest link of a ring."""
    return INSIDE if count <= PER_MACHINE else BETWEEN


def compute_seconds(model: Model, rate: float) -> float:
    """Return the seconds of a step without communication."""
    return model.batch * model.flop_per_token / rate


def step_seconds(model: Model, rate: float, count: int, overlap: float = BACKWARD) -> float:
    """Return the seconds of a step of DDP that sends gradients during a share `overlap` of the computation."""
    compute = compute_seconds(model, rate)
    sent = ddp_step(model.parameters, model.tensors, count) / bandwidth(count)
    return compute * (1 - overlap) + max(compute * overlap, sent)


def checkpoint_bytes(model: Model) -> float:
    """Return the size of a checkpoint with AdamW: weights and two moments."""
    return 3 * FLOAT * model.parameters


def host_seconds(model: Model, count: int) -> float:
    """Return the seconds of work of a process on its CPU per step, which increase with devices.

    It gathers the global batch, and takes part in the all-reduce of two flags, which passes 2 (N - 1) messages one
    after the other.
    """
    return model.batch * count / GATHERED + 2 * (count - 1) * HOP


def most_devices(model: Model, rate: float) -> int:
    """Return the largest number of devices at which the work on the CPU is shorter than a step."""
    return next(count - 1 for count in range(1, 10**6) if host_seconds(model, count) > compute_seconds(model, rate))
