"""A subset of scripts/survive.py: a run that was killed and resumed equals an uninterrupted one."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
from scripts.kills import chain, command
from scripts.kills.command import Command, Ended, Kill
from scripts.kills.compare import differences
from scripts.kills.scenarios import Scenario, run_folder
from scripts.survive import kill_of, kind_of

STEPS = ("trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=2")
SHORT = (*STEPS, "trainer.max_steps=4", "trainer.log_every_n_steps=1", "visualization=[]")
VECTORS = ("experiment=vectors", "data.rows=200", *SHORT)
TINY = (
    "transfer.labels=[2]",
    "transfer.seeds=1",
    "transfer.budgets.converged=[]",
    "transfer.arms=[pretrained,scratch]",
)
SCENARIOS = {
    "finetune": Scenario(
        "vectors", "finetune", ("stage=finetune", *VECTORS, "init=scratch", "data.labels_per_class=20", "average=ema")
    ),
    "lp_ft": Scenario(
        "lp_ft", "finetune", ("stage=finetune", *SHORT, "init=scratch", "data.labels_per_class=10", "strategy=lp_ft")
    ),
    "evaluate": Scenario("vectors", "evaluate", ("stage=evaluate", "run={finetune}")),
    "transfer": Scenario(
        "vectors",
        "transfer",
        ("stage=transfer", *VECTORS, *TINY, "pretrain.trainer.max_epochs=-1", "pretrain.trainer.max_steps=4"),
    ),
}


class Undisturbed:
    """Undisturbed runs, each made when it is first asked for."""

    def __init__(self, folder: Path):
        self.folder, self.ended, self.places = folder, {}, {}
        command.preload([f"warmstart.{name}" for name in ("stages.transfer", "vmap.group", "stages.evaluate")])

    def run(self, name: str) -> tuple[Ended, Path]:
        if name not in self.ended:
            if name == "evaluate":
                self.run("finetune")
            ended = Command(self.folder / name, SCENARIOS[name].arguments(self.places)).wait()
            assert ended.status == 0, ended.output
            self.ended[name], self.places[name] = ended, str(run_folder(self.folder / name))
        return self.ended[name], Path(self.places[name])


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("calm"))


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("finetune", [("SIGKILL", "half of last.ckpt"), ("SIGTERM", "half appended metrics.csv")]),
        ("lp_ft", [("SIGINT", "before rename model")]),
        ("evaluate", [("SIGKILL", "half logged train.log")]),
        ("transfer", [("SIGKILL", "before manifest.json")]),
    ],
    ids=["finetune", "lp_ft", "evaluate", "transfer"],
)
def test_what_was_killed_ends_as_undisturbed(name: str, kills: list[tuple[str, str]], calm: Undisturbed, tmp_path):
    ended, folder = calm.run(name)
    kinds = [kind_of(line) for line in ended.points]
    chosen = [Kill(signal.Signals[number], kinds.index(kind) + 1) for number, kind in kills]
    result = chain.harass(SCENARIOS[name], tmp_path / name, folder, calm.places, chosen, rival=name == "evaluate")
    assert not result.stuck
    assert not result.different
    assert result.kills == len(kills)
    assert result.resumes >= 1


def test_a_difference_is_seen(calm: Undisturbed, tmp_path: Path):
    """The campaign itself can fail: other weights, another row, a number of the record, a file too much."""
    _, folder = calm.run("finetune")
    shutil.copytree(folder, tmp_path / "copy")
    assert differences(folder, tmp_path / "copy") == []
    for name, old, new in (
        ("model/model.safetensors", b"\x00\x00", b"\x00\x01"),
        ("metrics.csv", b"val/loss", b"val/lost"),
        ("run.json", b'"steps": 4', b'"steps": 5'),
    ):
        path = tmp_path / "copy" / name
        path.write_bytes(path.read_bytes().replace(old, new))
    (tmp_path / "copy/.run.json.0.tmp").touch()
    found = " ".join(differences(folder, tmp_path / "copy"))
    for expected in ("model.safetensors differs", "metrics.csv: ", "cost.steps: 4 is now 5", ".tmp is too much"):
        assert expected in found


def test_kills_are_of_every_kind(calm: Undisturbed):
    ended, _ = calm.run("finetune")
    kills = [kill_of(ended, random.Random(seed)) for seed in range(30)]
    assert {kill.number for kill in kills} == set(command.SIGNALS)
    assert any(kill.point for kill in kills)
    assert any(kill.seconds for kill in kills)
