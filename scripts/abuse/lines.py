"""Command lines with settings that may not be: made from the composed configs, one change each, and written by hand.

A line that is accepted must be allowed, with a reason, by `ALLOWED`; one that must be accepted is marked so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
FEW = ("nan", "null", "text", "-1", "0", "list", "mapping")  # where a key has been changed in another stage already
NUMBERS = ("true", "-1", "0", "0.5", "1.5", "huge", "huge number")
NODES = ("null", "text", "list", "mapping", "0")  # what a section is changed to
SKIPPED = re.compile(r"^(stage|experiment|output_dir|hydra\b.*|sweep\b.*)$")


@dataclass(frozen=True)
class Line:
    """A command line.

    Args:
        words: of it.
        key: that is changed.
        change: how; a name of `CHANGES`, or of another kind of change.
        right: whether it must be accepted; None where `ALLOWED` decides.
    """

    words: tuple[str, ...]
    key: str
    change: str
    right: bool | None = None

    def reason(self) -> str | None:
        """Why the line may be accepted, or None."""
        if self.right is not None:
            return "written as right" if self.right else None
        found = (why for keys, changes, why in ALLOWED if self.change in changes and re.fullmatch(keys, self.bare))
        return next(found, None)

    @property
    def bare(self) -> str:
        """The key without the stage or arm that it is of."""
        return re.sub(r"^(pretrain\.|arm\.\w+\.(?!init|against|preprocessor|baseline))", "", self.key)


# (keys, changes, why such a line is accepted)
ALLOWED: tuple[tuple[str, tuple[str, ...], str], ...] = ()


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
    new = ("init=scratch", "pictures=false")
    found = {
        "finetune": ("stage=finetune", *new),
        "pretrain": ("stage=pretrain", "pictures=false"),
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
    for objective in ("masked", "masked_autoencoder", "quantised"):
        found[f"objective={objective}"] = (*vit, f"objective={objective}")
    for objective in ("byol", "contrastive", "vicreg", "supervised_contrastive"):
        found[f"objective={objective}"] = (*found["pretrain"], f"objective={objective}", "data.augment.shift=1")
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


def systematic(folder: Path) -> Iterator[Line]:
    """Every key of every base with every change; in a base, keys that an earlier one of the stage has are left out."""
    known: set[tuple[str, str]] = set()
    anywhere: set[str] = set()
    for name, words in bases(folder).items():
        yield Line(words, "", "unchanged", right=True)
        config = OmegaConf.to_container(composed(words), resolve=True)
        for key, value in leaves(config):
            stage = config["stage"]
            if SKIPPED.match(key) or (stage, key) in known or "options." in key or is_shared(name, key):
                continue
            group = name.partition("=")[0]
            if "=" not in name or key.startswith(group):
                known |= {(stage, key)} if "=" not in name else set()
                yield from changed(words, key, value, key.removeprefix("pretrain.") in anywhere)
                anywhere.add(key)


def is_shared(name: str, key: str) -> bool:
    """Whether a transfer has this key from its finetuning or pretraining settings, or an interpolation."""
    if not name.startswith("transfer"):
        return False
    is_own = key.startswith(("transfer", "arm", "pretrain"))
    return not is_own or key.startswith(("pretrain.backbone", "pretrain.data.split_seed")) or key.count(".") > 3


def changed(words: tuple[str, ...], key: str, value: Any, is_known: bool) -> Iterator[Line]:
    """The lines that change one key."""
    names = NODES if isinstance(value, dict) else FEW if is_known else CHANGES
    for change in names:
        yield Line((*words, f"{key}={CHANGES[change]}"), key, change)
    yield Line((*words, f"~{key}"), key, "deleted")
    if not is_known:
        place, _, last = key.rpartition(".")
        misspelt = f"{place}.{last}x" if place else f"{last}x"
        yield Line((*words, f"{misspelt}=1"), key, "misspelt", right=False)
        yield Line((*words, f"+{misspelt}=1"), key, "added", right=False)
