"""Golden losses: five small experiments with a fixed seed, step by step.

`python -m tests.golden` recreates golden.json; run it only if the numbers are meant to change.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

GOLDEN = Path(__file__).with_suffix(".json")

STEPS = ("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4")
SHORT = (*STEPS, "trainer.max_steps=8", "trainer.log_every_n_steps=1", "trainer.precision=32-true", "visualization=[]")
TEXT = (
    "experiment=text",
    "data.root={root}/texts.csv",
    "data.text=text",
    "data.target=label",
    "data.tokenizer.vocabulary=200",
    "data.batch_size=8",
    "backbone.depth=1",
    "backbone.width=32",
    "backbone.heads=2",
)
IMAGES = ("experiment=images", "data.root={root}/images", "data.size=16", "data.batch_size=8", "backbone=resnet")
MIXED = ("data/augment=[image,mixup,cutmix]", "data.augment.mixup.alpha=0.4", "data.augment.cutmix.alpha=0.4")
SPEECH = (
    "experiment=speech",
    "data.test_clusters=[george,jackson,lucas,nicolas]",
    "data.batch_size=8",
    "backbone.depth=1",
    "backbone.width=32",
    "backbone.heads=2",
    "backbone.stem.channels=4",
)
RECIPES = {
    "vectors": (
        ("experiment=vectors", "data.rows=200"),
        (),
        ("data.labels_per_class=20", "strategy=l2_sp", "average=ema"),
    ),
    "digits": (("experiment=digits",), ("objective=byol", "data/augment=noise"), ("strategy=lora", "loss=focal")),
    "text": (TEXT, ("data.pack=32",), ("strategy=layer_decay",)),
    "images": (
        IMAGES,
        (),
        MIXED,
    ),
    "speech": (SPEECH, (), ("objective=ctc", "strategy=gradual")),
}


def write_data(root: Path) -> None:
    """Write the small data sets that the recipes for texts and images read."""
    import numpy as np
    from PIL import Image

    words = np.array(
        [
            "a",
            "good",
            "film",
            "with",
            "bad",
            "actors",
            "and",
            "one",
            "long",
            "dull",
            "plot",
            "that",
            "nobody",
            "saw",
            "twice",
        ]
    )
    generator = np.random.default_rng(0)
    with open(root / "texts.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(120):
            writer.writerow([" ".join(generator.choice(words, 6 + row % 9)), ["no", "yes"][row % 2]])
    for label in ("cat", "dog"):
        (root / "images" / label).mkdir(parents=True)
        for number in range(40):
            pixels = generator.integers(0, 200 if label == "cat" else 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / label / f"{number}.png")


def losses_of(run: Path) -> dict[str, list[float]]:
    """Each loss in a run's metrics.csv, in order."""
    losses: dict[str, list[float]] = {}
    with open(run / "metrics.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["name"].startswith(("train/loss", "val/loss", "val/average_loss", "test/loss")):
                losses.setdefault(row["name"], []).append(float(row["value"]))
    return losses


def measure(name: str, folder: Path, train: Callable[..., None]) -> dict[str, dict[str, list[float]]]:
    """Pretrain and finetune a recipe; return the losses by stage.

    Args:
        name: of the recipe.
        folder: an empty folder for data and runs.
        train: runs a command line, given as words; raises where it fails.
    """
    write_data(folder)
    outputs = folder / "outputs"
    found = {}
    common, *own = RECIPES[name]
    for stage, words in zip(("pretrain", "finetune"), own, strict=True):
        shared = [word.format(root=folder) for word in (*common, *words)]
        train(f"stage={stage}", *shared, *SHORT, "trainer.threads=1", output_dir=outputs)
        (run,) = outputs.glob(f"{stage}/*/*")
        found[stage] = losses_of(run)
    return found


if __name__ == "__main__":
    from hydra import compose, initialize_config_dir

    from warmstart import main

    def _train(*words: str, output_dir: Path) -> None:
        with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
            status = main.run(compose("train", overrides=[*words, f"output_dir={output_dir}"]))
        if status:
            raise SystemExit(status)

    measured = {}
    for _name in RECIPES:
        with tempfile.TemporaryDirectory() as _folder:
            measured[_name] = measure(_name, Path(_folder), _train)
    GOLDEN.write_text(json.dumps(measured, indent=1) + "\n")
