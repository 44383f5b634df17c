"""The settings of each stage: their names, types and ranges. Those of a component are its signature's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from warmstart.core.ranges import (
    Amount,
    AnyText,
    Batches,
    Below1,
    Count,
    Duration,
    Inside,
    Limit,
    Location,
    Part,
    Positive,
    Range,
    Share,
    StepShare,
    Whole,
    between,
    least,
    only,
)


@dataclass(frozen=True)
class Section:
    """Settings under one key.

    Args:
        keys: a type, or a section, by name.
        optional: names that may be absent.
        is_open: whether there may be further names, which something else checks.
    """

    keys: Mapping[str, Any]
    optional: frozenset[str] = frozenset()
    is_open: bool = False


def component(**keys: Any) -> Section:
    """A node with a `_target_`, whose signature has further settings; those named here are checked by what is given."""
    return Section({"_target_": str, **keys}, frozenset(keys), is_open=True)


Betas = Annotated[
    list[Below1], Range("two numbers, 0 or more and below 1, such as [0.9,0.95]", lambda value: len(value) == 2)
]
PRECISIONS = Literal["auto", "32", "32-true", "bf16", "bf16-mixed", "bf16-true", "16", "16-mixed"]
READING = {
    "separator": Annotated[str, Range("one character, such as ';', or tab", bool)] | None,
    "missing_values": Annotated[list[AnyText | float], Range("a list of texts, such as [NA,-999]", lambda value: True)]
    | None,
    "on_error": Literal["raise", "skip"],
}
FEEDING = {"batch_size": Count, "augment": Section({}, is_open=True)}
SOURCE = {
    **READING,
    "sources": Annotated[dict, Range("two or more data sets, such as data=[a,b]", lambda value: len(value) > 1)],
    "tokenizer": Annotated[dict, Range("a tokenizer: choose it by data/tokenizer=NAME", bool)],
    "frames": Annotated[dict, Range("settings of frames: choose them by data/frames=NAME", bool)],
}
LABELS = {"labels_per_class": Count | None, "label_fraction": Share | None, "folds": least(2) | None, "fold": Whole}
BLOCKS = {"pack": between(8, 2**20) | None, "separate": bool}
TRAINER = Section(
    {
        "_target_": str,
        "max_epochs": Limit,
        "max_steps": Limit,
        "max_time": Duration | None,
        "max_tokens": Positive | None,
        "min_steps": Count | None,
        "min_epochs": Count | None,
        "accumulate_grad_batches": Count,
        "gradient_clip_val": Amount | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "precision": PRECISIONS | Literal[32, 16] | None,
        "check_val_every_n_epoch": Count | None,
        "val_check_interval": Batches | None,
        "log_every_n_steps": Count,
        **dict.fromkeys((f"limit_{part}_batches" for part in ("train", "val", "test", "predict")), Batches | None),
        "overfit_batches": Whole | Part,
        "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
        "devices": only(1, "a run uses one device"),
        "num_nodes": only(1, "a run uses one device"),
        "threads": Count | Literal["auto"] | None,
        "deterministic": bool | Literal["warn"] | None,
        "benchmark": bool | None,
        "detect_anomaly": bool,
        "inference_mode": bool,
        "profiler": Literal["simple", "advanced", "pytorch"] | None,
    },
    frozenset(
        {
            *("min_epochs", "gradient_clip_algorithm", "limit_predict_batches", "num_nodes", "threads"),
            *("benchmark", "detect_anomaly", "inference_mode"),
        }
    ),
)
OPTIMIZER = component(
    weight_decay=Amount,
    momentum=Below1,
    adam_scale=Positive,
    betas=Betas,
    eps=Positive,
    nesterov=bool,
)
COMMON = {"stage": str, "experiment": str, "seed": Whole, "output_dir": Location, "trust": list[str]}
TRAINING = {
    **COMMON,
    "init": Location,
    "preprocessor": Location | None,
    "pictures": bool,
    "patience": Count | None,
    "backbone": component(),
    "objective": component(),
    "loss": component(),
    "optimizer": Section({**OPTIMIZER.keys, "lr": Positive}, OPTIMIZER.optional, is_open=True),
    "scheduler": component(**dict.fromkeys(("warmup", "decay", "peak", "start", "final"), Part)),
    "average": component(decay=Inside, start=StepShare, every=Count),
    "trainer": TRAINER,
}
MAY_LACK = frozenset({"preprocessor", "patience", "loss", "average"})
DATA = {"pretrain": {**FEEDING, **BLOCKS}, "finetune": {**FEEDING, **LABELS}}
KNOWN_DATA = frozenset(SOURCE)
PRETRAIN = Section(
    {
        **TRAINING,
        "data": Section({"_target_": str, **DATA["pretrain"], **SOURCE}, KNOWN_DATA, is_open=True),
        "snapshots": between(0, 1000),
        "feature_rows": Whole,
    },
    MAY_LACK | {"feature_rows"},
)
FINETUNE = Section(
    {
        **TRAINING,
        "data": Section({"_target_": str, **DATA["finetune"], **SOURCE}, KNOWN_DATA, is_open=True),
        "strategy": component(rate=Positive),
        "fresh": list[str],
        "forgetting": bool,
        "test": bool,
    },
    MAY_LACK,
)
TRANSFER = Section(
    {
        "arms": Literal["strategies"] | list[str],
        "start": Location,
        "labels": list[Literal["all"] | Count | Inside],
        "seeds": Count,
        "pretrain_seeds": Count,
        "budgets": Section({}, is_open=True),
        "converged": Section(dict.fromkeys(("patience", "most", "scratch"), Count)),
        "tune": Whole,
        "margin": Amount,
        "require": str | None,
    },
)
ARM = Section({**FINETUNE.keys, "against": str | None, "baseline": Literal["majority", "linear"]})
RUN = {**COMMON, "run": Location}
STAGES = {
    "pretrain": PRETRAIN,
    "finetune": FINETUNE,
    "transfer": Section(
        {**FINETUNE.keys, "pretrain": PRETRAIN, "transfer": TRANSFER, "arm": Section({}, is_open=True)}, MAY_LACK
    ),
    "evaluate": Section(RUN),
    "export": Section({**RUN, "format": str, "folder": Location | None}),
    "generate": Section(
        {
            **RUN,
            "prompt": AnyText | float | bool | None,
            "length": Count,
            "samples": Count,
            "temperature": Amount,
            "top_k": Count | None,
            "top_p": Share | None,
        }
    ),
    "predict": Section(
        {**RUN, "input": Location, "data": Section({**READING, "missing_columns": Literal["error", "fill"]})}
    ),
    "report": Section({**COMMON, "runs": Location}),
    "rerun": Section(RUN),
    "soup": Section({**COMMON, "runs": Location, "method": Literal["greedy", "uniform", "wise"]}),
}
SWEEP = Section(
    {
        "resume": Location | None,
        "job": Location | None,
        "on_failure": Literal["continue", "stop"],
        "retries": Whole,
        "preflight": bool,
        "trials": Count,
        "seeds": Count,
        "sampler": str,
        "pruner": str,
    },
    frozenset({"trials", "seeds", "sampler", "pruner"}),
)
ROOT = Section({"sweep": SWEEP, "resume": Location | None}, is_open=True)  # what no stage sees
