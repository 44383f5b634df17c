"""Scenarios to kill: short runs of every stage, by recipe, and their parent runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scripts.kills.command import Command

STEPS = (
    *("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=4"),
    *("trainer.max_steps=12", "trainer.log_every_n_steps=2", "trainer.accelerator=cpu"),
)
SHORT = (*STEPS, "visualization=[]")
FEW = "data.labels_per_class=10"
PAIR = ("transfer.labels=[2]", "transfer.seeds=2", "transfer.budgets.converged=[]", "trainer.accelerator=cpu")
TINY = (*PAIR, "trainer.max_steps=4", "trainer.val_check_interval=2", "pretrain.trainer.max_epochs=1")
TEXT = ("experiment=text", "data.root={texts}", "data.text=text", "data.target=label", "backbone=tiny")
TOKENS = (*TEXT, "data.tokenizer.vocabulary=120", "data.tokenizer.context=32", "data.batch_size=8")
LINES = ("experiment=shakespeare", "data=text_files", "data.root={lines}", "backbone.depth=1", "backbone.width=32")
CAUSAL = ("stage=pretrain", *LINES, "data/tokenizer=characters", "data.pack=32", "data.batch_size=8")
VECTORS = ("experiment=vectors", "data.rows=400", *SHORT)
PER_CLASS = "data.labels_per_class=40"
GRID = ("hydra.launcher.workers=0", "sweep.preflight=false")


@dataclass(frozen=True)
class Scenario:
    """A command line to kill.

    Args:
        recipe: what the filter of the campaign names.
        name: the stage, or what of it.
        words: its arguments; a name in braces is a parent's folder or a file of `write_data`.
    """

    recipe: str
    name: str
    words: tuple[str, ...]

    @property
    def is_sweep(self) -> bool:
        """Whether it continues with sweep.resume=."""
        return "-m" in self.words

    def arguments(self, places: dict[str, str]) -> list[str]:
        """Return its arguments with the folders filled in, and a relative output_dir."""
        return [*(word.format(**places) if "{" in word else word for word in self.words), "output_dir=outputs"]


SCENARIOS = (
    Scenario("digits", "pretrain", ("stage=pretrain", *STEPS, "snapshots=3", "feature_rows=50")),
    Scenario("digits", "finetune", ("stage=finetune", *STEPS, FEW, "init={digits}", "forgetting=true")),
    Scenario("digits", "evaluate", ("stage=evaluate", "run={tuned}")),
    Scenario("digits", "predict", ("stage=predict", "run={tuned}", "input={rows}")),
    Scenario("digits", "soup", ("stage=soup", "runs={soups}")),
    Scenario("digits", "soup wise", ("stage=soup", "runs={tuned}", "method=wise")),
    Scenario("digits", "auto", ("stage=finetune", *SHORT, "data.labels_per_class=3", "init=scratch", "strategy=auto",
                                "trainer.max_steps=16", "strategy.candidates=[lp_ft,full]", "strategy.rates=[1]")),
    Scenario("digits", "transfer", ("stage=transfer", *TINY, "transfer.arms=[pretrained,scratch,linear]")),
    Scenario("digits", "grid", ("-m", "stage=finetune", *SHORT, FEW, "init={digits}", "seed=0,1,2", *GRID)),
    Scenario("digits", "search", ("-m", "sweep=optuna", "sweep.trials=3", *SHORT, FEW, "init=scratch", *GRID,
                                  "optimizer.lr=interval(1e-4,1e-1)", "sweep.sampler=random")),
    Scenario("vectors", "pretrain", ("stage=pretrain", *VECTORS)),
    Scenario("vectors", "finetune", ("stage=finetune", *VECTORS, "init=scratch", "patience=2", PER_CLASS)),
    Scenario("vectors", "transfer", ("stage=transfer", "experiment=vectors", "data.rows=400", *PAIR, *TINY[4:],
                                     "transfer.arms=[pretrained,scratch]", "pretrain.snapshots=2")),
    Scenario("text", "pretrain", ("stage=pretrain", *TOKENS, *SHORT, "data.pack=32")),
    Scenario("text", "finetune", ("stage=finetune", *TOKENS, *STEPS, "init={text}")),
    Scenario("text", "predict", ("stage=predict", "run={text_tuned}", "input={texts}")),
    Scenario("text", "generate", ("stage=generate", "run={causal}", "prompt=ROMEO:", "length=20")),
    Scenario("text", "export", ("stage=export", "run={text_tuned}")),
    Scenario("text", "export folder", ("stage=export", "run={text_tuned}", "folder=exported/here")),
    Scenario("byol", "pretrain", ("stage=pretrain", *SHORT, "objective=byol", "data/augment=shift")),
    Scenario("lp_ft", "finetune", ("stage=finetune", *SHORT, FEW, "init={digits}", "strategy=lp_ft")),
    Scenario("lora", "finetune", ("stage=finetune", *SHORT, FEW, "init={digits}", "strategy=lora", "average=ema")),
    Scenario("lora", "evaluate", ("stage=evaluate", "run={lora}")),
)  # fmt: skip
RECIPES = tuple(dict.fromkeys(scenario.recipe for scenario in SCENARIOS))

PARENTS = {  # in the order in which they are needed
    "digits": ("stage=pretrain", *SHORT),
    "tuned": ("stage=finetune", *SHORT, FEW, "init={digits}"),
    "lora": ("stage=finetune", *SHORT, FEW, "init={digits}", "strategy=lora", "average=ema"),
    "soups": ("-m", "stage=finetune", *SHORT, FEW, "init={digits}", "seed=0,1", *GRID),
    "text": ("stage=pretrain", *TOKENS, *SHORT, "data.pack=32"),
    "text_tuned": ("stage=finetune", *TOKENS, *SHORT, "init={text}"),
    "causal": (*CAUSAL, *SHORT),
}


def needed(words: tuple[str, ...]) -> set[str]:
    """Return the parents that these arguments name, and theirs."""
    own = {name for name in PARENTS if any(f"{{{name}}}" in word for word in words)}
    return own.union(*(needed(PARENTS[name]) for name in own))


def make_parents(folder: Path, scenarios: list[Scenario]) -> dict[str, str]:
    """Run what these scenarios start from; return the folders and files by name."""
    places = write_data(folder)
    names = set().union(*(needed(scenario.words) for scenario in scenarios))
    for name in (name for name in PARENTS if name in names):
        ended = Command(folder / name, Scenario("", name, PARENTS[name]).arguments(places)).wait()
        if ended.status:
            raise RuntimeError(f"{name}, which others start from, ended with {ended.status}: {ended.output[-2000:]}")
        places[name] = str(run_folder(folder / name))
    return places


def run_folder(folder: Path) -> Path | None:
    """Return the folder of the run or sweep that a command made below `folder`; None before it has a record."""
    runs = list(folder.glob("outputs/*/*/*/run.json"))
    sweeps = list(folder.glob("outputs/sweep/*/*/*/manifest.json"))
    if len(runs + sweeps) > 1:
        raise RuntimeError(f"{folder} has several runs")
    return (runs + sweeps)[0].parent if runs or sweeps else None


def write_data(folder: Path) -> dict[str, str]:
    """Write the small files that scenarios read."""
    folder.mkdir(parents=True, exist_ok=True)
    good, bad = ("fine", "lovely", "bright", "warm", "clever"), ("dull", "grim", "awful", "cold", "stale")
    rows = []
    for number in range(120):
        own, label = ((good, "good"), (bad, "bad"))[number % 2]
        rows.append(f"the {own[number % 5]} film was {own[number // 5 % 5]} number {number},{label}")
    files = {
        "texts": ("texts.csv", "text,label\n" + "".join(f"{row}\n" for row in rows)),
        "lines": ("lines.txt", "ROMEO:\nAy me!\n\nJULIET:\nO Romeo, Romeo!\n\n" * 60),
        "rows": ("rows.csv", ",".join(map(str, range(64))) + "\n" + (",".join(["0", "7", "3", "16"] * 16) + "\n") * 5),
    }
    for name, content in files.values():
        (folder / name).write_text(content)
    return {name: str(folder / file) for name, (file, _) in files.items()}
