"""The settings of each stage: names, types and ranges. Those of a component are in its signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from warmstart.core.ranges import (
    AnyText,
    AtMost,
    Batches,
    Duration,
    LeftOpenUnitInterval,
    Limit,
    Location,
    MissingValues,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    Range,
    Ratio,
    RightOpenUnitInterval,
    Separator,
    UnitInterval,
    at_least,
    between,
    only,
)


@dataclass(frozen=True)
class Section:
    """Settings under one key.

    Args:
        keys: a type, or a section, by name.
        optional: names that may be absent.
        is_open: whether further names are allowed, which are checked elsewhere.
    """

    keys: Mapping[str, Any]
    optional: frozenset[str] = frozenset()
    is_open: bool = False


COMPONENT = Section({"_target_": str}, is_open=True)  # the other settings are in its signature
Betas = Annotated[
    list[RightOpenUnitInterval],
    Range("two numbers, 0 or more and below 1, such as [0.9,0.95]", lambda value: len(value) == 2),
]
PRECISIONS = Literal["auto", "32", "32-true", "bf16", "bf16-mixed", "bf16-true", "16", "16-mixed"]
LOADING = {"batch_size": PositiveInt, "augment": Section({}, is_open=True)}
SOURCE = {  # settings that are read before the source is imported
    "separator": Separator | None,
    "sources": Annotated[dict, Range("two or more data sets, such as data=[a,b]", lambda value: len(value) > 1)],
    "tokenizer": Annotated[dict, Range("a tokenizer: choose it by data/tokenizer=NAME", bool)],
    "frames": Annotated[dict, Range("settings of frames: choose them by data/frames=NAME", bool)],
}
LABELS = {
    "labels_per_class": PositiveInt | AtMost | None,
    "label_fraction": LeftOpenUnitInterval | None,
    "folds": at_least(2) | None,
    "fold": NonNegativeInt,
    "unlabelled": bool,
    "strong": Section({}, is_open=True),
    "test_generations": NonNegativeInt,
    "label_words": dict | None,
}
BLOCKS = {"pack": between(8, 2**20) | None, "separate": bool}
TRAINER = Section(
    {
        "_target_": str,
        "max_epochs": Limit,
        "max_steps": Limit,
        "max_time": Duration | None,
        "max_tokens": PositiveFloat | None,
        "min_steps": PositiveInt | None,
        "min_epochs": PositiveInt | None,
        "accumulate_grad_batches": PositiveInt,
        "gradient_clip_val": NonNegativeFloat | None,
        "gradient_clip_algorithm": Literal["norm", "value"] | None,
        "precision": PRECISIONS | Literal[32, 16] | None,
        "check_val_every_n_epoch": PositiveInt | None,
        "val_check_interval": Batches | None,
        "log_every_n_steps": PositiveInt,
        **dict.fromkeys((f"limit_{part}_batches" for part in ("train", "val", "test", "predict")), Batches | None),
        "overfit_batches": NonNegativeInt | UnitInterval,
        "accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps"],
        "devices": PositiveInt,
        "num_nodes": only(1, "processes on several machines are started by torchrun or Slurm"),
        "sharding": Literal["parameters"] | None,
        "threads": PositiveInt | Literal["auto"] | None,
        "deterministic": bool | Literal["warn"] | None,
        "benchmark": bool | None,
        "detect_anomaly": bool,
        "inference_mode": bool,
        "profiler": Literal["simple", "advanced", "pytorch"] | None,
    },
    frozenset(
        {
            *("min_epochs", "gradient_clip_algorithm", "limit_predict_batches", "num_nodes", "sharding", "threads"),
            *("benchmark", "detect_anomaly", "inference_mode"),
        }
    ),
)
OPTIMIZER = Section(
    {
        "_target_": str,
        "lr": PositiveFloat,
        "weight_decay": NonNegativeFloat,
        "momentum": RightOpenUnitInterval,
        "betas": Betas,
        "eps": PositiveFloat,
        "nesterov": bool,
    },
    frozenset({"weight_decay", "momentum", "betas", "eps", "nesterov"}),
    is_open=True,
)
SEVERAL = ("logger", "visualization")  # groups of which a config chooses any number of options
COMMON = {"stage": str, "experiment": str, "seed": NonNegativeInt, "output_dir": Location, "trust": list[str]}
TRAINING = {
    **COMMON,
    "init": Location,
    "preprocessor": Location | None,
    **dict.fromkeys(SEVERAL, Section({}, is_open=True)),
    "patience": PositiveInt | None,
    "backbone": COMPONENT,
    "objective": COMPONENT,
    "loss": COMPONENT,
    "optimizer": OPTIMIZER,
    "scheduler": COMPONENT,
    "average": COMPONENT,
    "trainer": TRAINER,
}
MAY_LACK = frozenset({"preprocessor", "patience", "loss", "average"})
DATA = {"pretrain": {**LOADING, **BLOCKS}, "finetune": {**LOADING, **LABELS}}
KNOWN_DATA = frozenset({*SOURCE, "unlabelled", "strong", "test_generations", "label_words"})
PRETRAIN = Section(
    {
        **TRAINING,
        "data": Section({"_target_": str, **DATA["pretrain"], **SOURCE}, KNOWN_DATA, is_open=True),
        "teacher": Location | None,
        "snapshots": between(0, 1000),
        "feature_rows": NonNegativeInt,
    },
    MAY_LACK | {"teacher", "feature_rows"},
)
FINETUNE = Section(
    {
        **TRAINING,
        "data": Section({"_target_": str, **DATA["finetune"], **SOURCE}, KNOWN_DATA, is_open=True),
        "strategy": COMPONENT,
        "reinitialize": list[str],
        "forgetting": bool,
        "generic": dict | None,
        "test": bool,
    },
    MAY_LACK | {"generic"},
)
TRANSFER = Section(
    {
        "arms": Literal["strategies"] | list[str],
        "start": Location,
        "starts": list[Location] | None,
        "cost": PositiveFloat,
        "labels": list[Literal["all"] | PositiveInt | OpenUnitInterval | AtMost],
        "seeds": PositiveInt | Literal["auto"],
        "looks": list[PositiveInt],
        "pretrain_seeds": PositiveInt,
        "budgets": Section({}, is_open=True),
        "converged": Section(dict.fromkeys(("patience", "most", "scratch"), PositiveInt)),
        "tune": NonNegativeInt,
        "margin": NonNegativeFloat,
        "require": str | None,
        "price": Section(dict.fromkeys(("label", "hour"), NonNegativeFloat | None)),
    },
    frozenset({"price"}),
)
ARM = Section(
    {
        **FINETUNE.keys,
        "against": str | list[str] | None,
        "length": Ratio,
        "tune": NonNegativeInt,
        "baseline": COMPONENT,
    }
)
RUN = {**COMMON, "run": Location}
ADAPT = {"adapt": Literal["norms"] | None}
SAMPLING = {
    "length": PositiveInt,
    "temperature": NonNegativeFloat | None,
    "top_k": PositiveInt | None,
    "top_p": LeftOpenUnitInterval | None,
}
STAGES = {
    "pretrain": PRETRAIN,
    "finetune": FINETUNE,
    "transfer": Section(
        {**FINETUNE.keys, "pretrain": PRETRAIN, "transfer": TRANSFER, "arm": Section({}, is_open=True)},
        MAY_LACK | {"generic"},
    ),
    "evaluate": Section({**RUN, **ADAPT}, frozenset(ADAPT)),
    "export": Section({**RUN, "format": str, "folder": Location | None}),
    "generate": Section(
        {
            **RUN,
            **SAMPLING,
            "prompt": AnyText | float | bool | None,
            "input": Location | None,
            "samples": PositiveInt,
        }
    ),
    "chat": Section({**RUN, **SAMPLING}),
    "predict": Section(
        {
            **RUN,
            **ADAPT,
            "input": Location,
            "data": Section(
                {
                    "separator": Separator | None,
                    "missing_values": MissingValues | None,
                    "on_error": Literal["raise", "skip"],
                    "missing_columns": Literal["error", "fill"],
                }
            ),
        },
        frozenset(ADAPT),
    ),
    "report": Section({**COMMON, "runs": Location | list[Location], "show_test": bool}),
    "rerun": Section(RUN),
    "soup": Section({**COMMON, "runs": Location, "method": Literal["greedy", "uniform", "wise"]}),
}
SWEEP = Section(
    {
        "resume": Location | None,
        "job": Location | None,
        "on_failure": Literal["continue", "stop"],
        "retries": NonNegativeInt,
        "preflight": bool,
        "show_test": bool,
        "trials": PositiveInt,
        "seeds": PositiveInt,
        "sampler": str,
        "pruner": str,
    },
    frozenset({"trials", "seeds", "sampler", "pruner"}),
)
ROOT = Section(  # keys that stages do not use
    {"sweep": SWEEP, "resume": Location | None, "extend": Location | None}, is_open=True
)
