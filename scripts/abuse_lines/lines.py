"""Command lines with invalid settings: single changes of composed configs, and lines written by hand.

A line that is accepted must be allowed, with a reason, by `ALLOWED`; one that must be accepted is marked so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from warmstart.main import CONF

# What a key's value is changed to, by a name for the change.
CHANGES = {
    "nan": "nan",
    "inf": "inf",
    "-inf": "-inf",
    "null": "null",
    "text": "abc",
    "quoted number": "'5'",
    "empty text": "''",
    "true": "true",
    "-1": "-1",
    "0": "0",
    "0.5": "0.5",
    "1.5": "1.5",
    "huge": "1000000000000000",
    "huge number": "1e30",
    "beyond 64 bits": str(10**30),
    "list": "[1,abc]",
    "empty list": "[]",
    "mapping": "{a: 1}",
}
ALWAYS = ("nan", "null", "text", "-1", "0")
ROTATED = tuple(change for change in CHANGES if change not in ALWAYS)
PER_KEY = 2
NODES = ("null", "text", "list")  # what a section is changed to
SKIPPED = re.compile(r"^(stage|(pretrain\.)?(experiment|output_dir)|hydra\b.*|sweep\b.*)$")


@dataclass(frozen=True)
class Line:
    """A command line.

    Args:
        words: of it.
        key: that is changed.
        change: how; a name of `CHANGES`, or of another kind of change.
        right: whether it must be accepted; None where `ALLOWED` decides.
        wholly: whether it is to go through Hydra's own door.
    """

    words: tuple[str, ...]
    key: str
    change: str
    right: bool | None = None
    wholly: bool = False

    def reason(self) -> str | None:
        """Why the line may be accepted, or None."""
        if self.right is not None:
            return "written as right" if self.right else None
        found = (
            why
            for keys, changes, why in ALLOWED
            if self.change in changes and any(re.fullmatch(keys, key) for key in (self.key, self.bare))
        )
        return next(found, None)

    @property
    def bare(self) -> str:
        """The key without the stage or arm that it is of."""
        return re.sub(r"^(pretrain\.|arm\.\w+\.(?!init|against|preprocessor|baseline))", "", self.key)


# (keys, changes, why such a line is accepted)
ALLOWED: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        r"data\.(labels_per_class|label_fraction|folds|pack|config|separator|missing_values|target|pair|root|pieces|connect"
        r"|speaker|audio|tokenizer\.stride)|patience|preprocessor|resume|transfer\.require|backbone\.(kv_heads|window|pooling)"
        r"|strategy\.layers|arm\.\w+\.(preprocessor|against)|average|loss|trainer\.(threads|check_val_every_n_epoch|deterministic|limit_\w+"
        r"|gradient_clip_val|max_time|max_tokens|min_steps|precision|profiler|val_check_interval)|data\.(categorical|ignore)",
        ("null",),
        "null means none, all or the default",
    ),
    (r"trainer\.(max_epochs|max_steps)", ("-1",), "-1 means no limit, where another limit is set"),
    (
        r"backbone\.dropout|strategy\.dropout|optimizer\.(weight_decay|momentum)|loss\.label_smoothing"
        r"|objective\.(noise|drop|swap|keep|invariance|variance|covariance|ngram|ngram_weight|momentum)|data\.noise"
        r"|trainer\.(gradient_clip_val|overfit_batches)|strategy\.(p|alpha|beta|backbone_scale)|loss\.gamma|feature_rows"
        r"|snapshots|transfer\.(margin|tune)|average\.start|data\.tokenizer\.stride",
        ("0",),
        "0 means none of it",
    ),
    (r"scheduler\.\w+", ("0", "0.5"), "a share of the steps or of the rate"),
    (r"seed|data\.(split_seed|seed)", ("0", "huge"), "a seed is any whole number that its generator takes"),
    (r"data\.fold", ("0", "huge"), "which fold matters only where data.folds is set"),
    (
        r"test|forgetting|data\.(augment\.\w+\.flip|separate|shared)|backbone\.(norm|bias|causal|tied)|objective\.\w+"
        r"|trainer\.deterministic",
        ("true",),
        "a boolean",
    ),
    (
        r"data\.augment\.\w+\.\w+|optimizer\.(lr|weight_decay|momentum|adam_scale)|backbone\.dropout|objective\.\w+|loss\.\w+"
        r"|strategy\.\w+|average\.\w+|data\.(noise|label_fraction|frames\.\w+|validation|test)|backbone\.mlp_ratio"
        r"|trainer\.(gradient_clip_val|limit_\w+|max_tokens|max_time|overfit_batches|val_check_interval)|transfer\.margin",
        ("0.5", "1.5"),
        "a number in the range",
    ),
    (
        r"optimizer\.(lr|weight_decay|adam_scale)|objective\.(noise|temperature|invariance|variance|covariance|ngram_weight)"
        r"|loss\.(gamma|delta)|strategy\.(alpha|beta|rate|cost|decay|backbone_scale)|data\.augment\.(color_jitter|noise|mixup|cutmix)\.\w+"
        r"|trainer\.(gradient_clip_val|max_tokens|max_time)|data\.noise|transfer\.margin",
        ("huge", "huge number"),
        "no number is too large for a rate or a weight: the run stops where its loss diverges",
    ),
    (
        r"trainer\.(max_epochs|max_steps|min_steps|accumulate_grad_batches|check_val_every_n_epoch|val_check_interval"
        r"|log_every_n_steps|limit_\w+_batches|overfit_batches)|patience|data\.(batch_size|labels_per_class|pack|values|classes|pieces)"
        r"|transfer\.(seeds|tune|converged\.\w+)|feature_rows|average\.every|objective\.(chunk|longest|beam|ngram)"
        r"|backbone\.(window|global_every)",
        ("huge",),
        "a limit that is never reached",
    ),
    (r"\S+\._partial_", ("true",), "as it is"),
    (r"data\.config", ("text",), "only a data set of the hub has configurations"),
    (r"trust|reinitialize|transfer\.budgets\.\w+|data\.(categorical|ignore|missing_values)", ("empty list",), "none"),
    (
        r"average|loss|feature_rows|trainer\.threads|loss\.\w+|optimizer\.(?!lr)\w+|scheduler\.\w+|strategy\.\w+|objective\.\w+|average\.\w+|data\.(?!batch_size|augment)\w+"
        r"|(logger|visualization)(\.\w+)?|data\.augment\.\w+|data\.augment\.crop\.(size|flip)|data\.augment\.shift\.flip|data\.(tokenizer|frames)\.\w+|backbone\.\w+|backbone\.stem\.\w+|arm\.\w+(\.\w+)?|(arm\.\w+\.)?baseline\.\w+|transfer\.budgets\.\w+",
        ("deleted",),
        "its default, or nothing that is needed",
    ),
)


def tables(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write a small table and small texts, and return the words that name them, by experiment."""
    rows = [f"{n % 7},{n % 5}.5,{'yes' if n % 2 else 'no'}" for n in range(60)]
    (folder / "table.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    texts = [f"this is text number {n} about {'cats' if n % 2 else 'dogs'},{n % 2}" for n in range(60)]
    (folder / "texts.csv").write_text("words,y\n" + "\n".join(texts) + "\n")
    return {
        "table": (f"data.root={folder}/table.csv", "data.target=y"),
        "text": (f"data.root={folder}/texts.csv", "data.text=words", "data.target=y", "backbone=tiny"),
    }


def bases(folder: Path) -> dict[str, tuple[str, ...]]:
    """The command lines that are changed, by name; each is right as it is."""
    data = tables(folder)
    new = ("init=scratch", "visualization=[]")
    found = {
        "finetune": ("stage=finetune", *new),
        "pretrain": ("stage=pretrain", "visualization=[]"),
        "transfer": ("stage=transfer",),
        "finetune vectors": ("stage=finetune", "experiment=vectors", *new),
        "pretrain vectors": ("stage=pretrain", "experiment=vectors"),
        "finetune table": ("stage=finetune", "experiment=table", *data["table"], *new),
        "finetune text": ("stage=finetune", "experiment=text", *data["text"], *new),
        "pretrain text": ("stage=pretrain", "experiment=text", *data["text"]),
        "transfer table": ("stage=transfer", "experiment=table", *data["table"]),
    }
    for loss in ("focal", "cross_entropy", "brier"):
        found[f"loss={loss}"] = (*found["finetune"], f"loss={loss}")
    for loss in ("huber", "l1"):
        found[f"loss={loss}"] = (*found["pretrain"], f"loss={loss}")
    for optimizer in ("sgd", "muon"):
        found[f"optimizer={optimizer}"] = (*found["finetune"], f"optimizer={optimizer}")
    for scheduler in ("constant", "one_cycle", "wsd"):
        found[f"scheduler={scheduler}"] = (*found["finetune"], f"scheduler={scheduler}")
    for average in ("ema", "swa"):
        found[f"average={average}"] = (*found["finetune"], f"average={average}")
    for path in sorted((CONF / "strategy").glob("*.yaml")):
        if path.stem not in ("auto", "norm_only"):
            found[f"strategy={path.stem}"] = (*found["finetune"], f"strategy={path.stem}")
    found["strategy=norm_only"] = (*found["finetune"], "strategy=norm_only", "backbone.norm=true")
    found["strategy=auto"] = (*found["finetune"], "strategy=auto", "trainer.max_epochs=300")
    vit = (*found["pretrain"], "backbone=vit")
    found["backbone=vit"] = vit
    found["backbone=resnet"] = (*found["finetune"], "backbone=resnet")
    for objective in ("masked", "masked_autoencoder", "quantized"):
        found[f"objective={objective}"] = (*vit, f"objective={objective}")
    for objective in ("byol", "contrastive", "vicreg", "supervised_contrastive"):
        found[f"objective={objective}"] = (*found["pretrain"], f"objective={objective}", "data/augment=shift")
    found["objective=causal"] = (*found["pretrain text"], "backbone=gpt_small", "objective=causal")
    found["objective=regression"] = (*found["pretrain vectors"], "objective=regression")
    speech = ("stage=finetune", "experiment=speech", *new)
    found["finetune speech"] = speech
    found["objective=ctc"] = (*speech, "objective=ctc")
    return found


def leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Each key of a config with its value, sections included."""
    for key, value in node.items():
        name = f"{place}.{key}" if place else str(key)
        yield name, value
        if isinstance(value, dict):
            yield from leaves(value, name)


def composed(words: tuple[str, ...]) -> DictConfig:
    """The config of a command line."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose("train", overrides=list(words))


def systematic(folder: Path, only: Collection[str] = ()) -> Iterator[Line]:
    """Every key of every base, changed; a key that an earlier base of the stage has is left out.

    Args:
        folder: for data.
        only: names of bases; empty for all.
    """
    known: set[tuple[str, str]] = set()
    count = 0
    for name, words in bases(folder).items():
        if only and name not in only:
            continue
        yield Line(words, "", "unchanged", right=True)
        config = OmegaConf.to_container(composed(words), resolve=True)
        group = name.partition("=")[0] if "=" in name else ""
        for key, value in leaves(config):
            stage = config["stage"]
            is_own = key.startswith(group) and not (name.startswith("strategy=") and ".options." in key)
            if SKIPPED.match(key) or (stage, key) in known or not is_own or is_shared(name, key):
                continue
            is_new = not any(key.removeprefix("pretrain.") == other for _, other in known)
            known |= set() if group else {(stage, key)}
            count += 1
            yield from changed(words, key, value, count if is_new else None)


def is_shared(name: str, key: str) -> bool:
    """Whether a transfer has this key from its finetuning or pretraining settings, or an interpolation."""
    if not name.startswith("transfer"):
        return False
    is_own = key.startswith(("transfer", "arm", "pretrain"))
    return not is_own or key.startswith(("pretrain.backbone", "pretrain.data.split_seed")) or key.count(".") > 3


def changed(words: tuple[str, ...], key: str, value: Any, turn: int | None) -> Iterator[Line]:
    """The lines that change one key; of the changes in `ROTATED`, some by turns, and none where turn is None."""
    names = NODES if isinstance(value, dict) else ALWAYS
    if turn is not None and not isinstance(value, dict):
        names = (*names, *(ROTATED[(turn * PER_KEY + number) % len(ROTATED)] for number in range(PER_KEY)))
    for change in names:
        is_group = isinstance(value, dict) and "." not in key
        yield Line((*words, f"{key}={CHANGES[change]}"), key, change, wholly=is_group)
    yield Line((*words, f"~{key}"), key, "deleted")
    if turn is not None:
        place, _, last = key.rpartition(".")
        misspelt = f"{place}.{last}x" if place else f"{last}x"
        yield Line((*words, f"{'+' * (turn % 3 > 0)}{misspelt}=1"), key, "misspelt", right=False)
