"""Compute what training on 8, 64 and 512 devices costs: communication, checkpoints, data and batches.

    python scripts/scale.py            # the tables of docs/scale.md, in Markdown

`scripts/scale_measure.py` repeats the measurements of the constants, and `scripts/scale_traffic.py` counts the bytes
that processes send.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from scale_formulas import (
    BACKWARD,
    DEVICE_MEMORY,
    DEVICES,
    FAST,
    FLOAT,
    HALF,
    HEADS,
    HOST_MEMORY,
    LOSS,
    MODELS,
    PER_MACHINE,
    RATES,
    READ,
    SHARED_DISK,
    SLOW,
    TEXT_BYTES,
    TOKENIZED,
    TOKENS_PER_PARAMETER,
    WRITTEN,
    Model,
    bandwidth,
    checkpoint_bytes,
    compute_seconds,
    ddp_step,
    fsdp_step,
    host_seconds,
    most_devices,
    step_seconds,
)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def short(value: float, unit: str) -> str:
    """Return a number with three digits and a prefix of its unit."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return seconds in a readable unit."""
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def efficiency(model: Model, rate: float, count: int, overlap: float) -> str:
    """Return the share of a step of DDP that is computation."""
    return f"{compute_seconds(model, rate) / step_seconds(model, rate, count, overlap):.0%}"


def per_device() -> str:
    """Return the table of the models on one device."""
    columns = ("model", "parameters", "FLOP per token", "tokens of a step", "step, published", "assumed", "memory, DDP")
    return table(
        columns,
        (
            (
                name,
                f"{model.parameters:,}",
                short(model.flop_per_token, ""),
                f"{model.batch:,}",
                *(duration(compute_seconds(model, rate)) for rate in RATES.values()),
                short(5 * FLOAT * model.parameters, "B"),
            )
            for name, model in MODELS.items()
        ),
    )


def communication() -> str:
    """Return the table of bytes and times per step."""

    def rows() -> Iterator[Sequence[str]]:
        for name, model in MODELS.items():
            for count in DEVICES:
                blocks = model.depth * model.block
                sent = ddp_step(model.parameters, model.tensors, count)
                sharded = fsdp_step(blocks, model.parameters - blocks, count)
                seconds = sent / bandwidth(count)
                shares = (efficiency(model, rate, count, part) for rate in RATES.values() for part in (BACKWARD, 0.0))
                yield name, str(count), short(sent, "B"), short(sharded, "B"), duration(seconds), *shares

    columns = ("model", "devices", "DDP sends", "FSDP2 sends", "time of DDP")
    return table((*columns, "published, overlapped", "not", "assumed, overlapped", "not"), rows())


def checkpoints() -> str:
    """Return the table of checkpoints."""
    columns = ("model", "checkpoint", "three files", "written by one process", "read by all ranks of a machine")
    return table(
        columns,
        (
            (
                name,
                short(size := checkpoint_bytes(model), "B"),
                short(3 * size, "B"),
                duration(size / WRITTEN),
                duration(max(size / READ, size / SHARED_DISK * PER_MACHINE)),
            )
            for name, model in MODELS.items()
        ),
    )


def data() -> str:
    """Return the table of data rates."""

    def rows() -> Iterator[Sequence[str]]:
        for name, model in MODELS.items():
            total = TOKENS_PER_PARAMETER * model.parameters
            for count in DEVICES:
                tokens = model.batch * count
                seconds = [step_seconds(model, rate, count) for rate in RATES.values()]
                rates = (short(tokens / one, "/s") for one in seconds)
                read = short(HALF * tokens / seconds[1], "B/s")
                host = host_seconds(model, count)
                shares = (f"{host / one:.1%}" for one in seconds)
                length = duration(total / tokens * seconds[0])
                yield name, str(count), short(tokens, ""), *rates, read, duration(host), *shares, length

    columns = ("model", "devices", "tokens of a step", "tokens, published", "assumed", "gathered by a rank, assumed")
    more = ("CPU work of a step", "of the step, published", "assumed", "20 tokens per parameter, published")
    return table((*columns, *more), rows())


def preparation() -> str:
    """Return the table of the preparation of 20 tokens per parameter."""
    columns = ("model", "tokens", "token ids on disk", "texts in memory", "of 8 ranks", "tokenization")

    def rows() -> Iterator[Sequence[str]]:
        for name, model in MODELS.items():
            tokens = TOKENS_PER_PARAMETER * model.parameters
            text = TEXT_BYTES * tokens
            sizes = (short(size, "B") for size in (HALF * tokens, text, PER_MACHINE * text))
            yield name, short(tokens, ""), *sizes, duration(tokens / TOKENIZED)

    return table(columns, rows())


def limits() -> str:
    """Return the table of what breaks, and where."""
    small, large = MODELS["124M"], MODELS["7B"]
    values = FLOAT * small.batch * small.width
    probabilities = FLOAT * small.batch * HEADS * small.context
    text = HOST_MEMORY / PER_MACHINE / TEXT_BYTES
    most = [most_devices(small, rate) for rate in (FAST, SLOW)]
    return table(
        ("what", "breaks at", "because"),
        (
            ("dropout of attention weights", *draws(probabilities)),
            ("other dropout", *draws(values)),
            ("work on the CPU", f"{most[0]} to {most[1]} devices", "124M: it takes longer than a step"),
            ("rows of a batch of 491,520 tokens", f"{491_520 // small.context} devices", "more ranks have no row"),
            ("memory of DDP", f"{short(DEVICE_MEMORY / 5 / FLOAT, '')} parameters", "80 GB, without activations"),
            ("checkpoints by the first rank", *saving(large)),
            ("raw texts in the memory of every rank", f"{short(text, '')} tokens", "8 ranks on a machine of 2 TB"),
            ("tokenization by one process", f"{short(86_400 * TOKENIZED, '')} tokens", "it takes a day"),
        ),
    )


def draws(size: float) -> tuple[str, str]:
    """Return at how many devices one tensor of draws, of `size` bytes per device, fills a tenth of a device."""
    return (
        f"{int(DEVICE_MEMORY / 10 / size)} devices",
        f"a tensor of draws, {short(size, 'B')} per device, is a tenth of 80 GB",
    )


def saving(model: Model) -> tuple[str, str]:
    """Return the interval of checkpoints below which more than 5 % of the time is their writing."""
    seconds = checkpoint_bytes(model) / WRITTEN
    return f"intervals below {duration(seconds / LOSS)}", "7B; the other ranks wait for more than 5 % of the time"


TABLES = {
    "One device": per_device,
    "Communication per step": communication,
    "Checkpoints": checkpoints,
    "Data": data,
    "Preparation": preparation,
    "Limits": limits,
}


def main() -> None:
    """Print all tables."""
    for title, make in TABLES.items():
        print(f"## {title}\n\n{make()}")


if __name__ == "__main__":
    main()
