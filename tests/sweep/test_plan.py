"""Plans: from a command line to saved jobs."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tests.records import write_run

from warmstart import main
from warmstart.core.errors import UserError
from warmstart.run.checksums import write_record
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256
from warmstart.run.manifest import Job, Manifest
from warmstart.sweep.engine import reopen
from warmstart.sweep.plan import Composer, grid, group_key

WORDS = ["stage=finetune", "init=scratch"]


@pytest.fixture
def composer() -> Composer:
    return Composer([main.CONF])


def test_every_combination_in_hydras_order(composer: Composer):
    jobs = grid(composer, [*WORDS, "loss=cross_entropy,focal", "optimizer.lr=0.01,0.003", "seed=range(2)"])
    values = [tuple(job.values.values()) for job in jobs]
    assert values == [(loss, lr, s) for loss in ("cross_entropy", "focal") for lr in (0.01, 0.003) for s in (0, 1)]
    assert list(jobs[0].values) == ["loss", "optimizer.lr", "seed"]
    assert len({job.sha256 for job in jobs}) == len({job.name for job in jobs}) == 8
    assert jobs[3].config["optimizer"]["lr"] == 0.003
    assert jobs[3].config["loss"]["_target_"] == "warmstart.loss.cross_entropy.cross_entropy"
    assert jobs[7].config["loss"]["_target_"] == "warmstart.loss.focal.focal"


def test_a_job_is_what_the_same_words_alone_compose_to(composer: Composer, composed):
    words = [*WORDS, "loss=focal", "optimizer=sgd", "optimizer.lr=0.1", "+trainer.benchmark=true", "data.batch_size=8"]
    (job,) = grid(composer, words)
    alone = OmegaConf.to_container(composed(*words), resolve=True)
    del alone["sweep"], alone["resume"], alone["extend"]
    assert job.config == alone
    assert job.sha256 == config_sha256(alone)


def test_equal_jobs_are_one(composer: Composer):
    assert len(grid(composer, [*WORDS, "seed=0,0,1"])) == 2
    orders = "data/augment=[blur,crop],[crop,blur],[blur,crop]"  # transforms act in their order
    assert len(grid(composer, [*WORDS, orders])) == 2


def test_the_last_word_for_a_key_counts(composer: Composer):
    jobs = grid(composer, [*WORDS, "seed=0,1,2", "seed=5,6"])
    assert [job.config["seed"] for job in jobs] == [5, 6]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=0.1,-1"], r"optimizer.lr=-1: must be a number above 0 .*\(job optimizer.lr=-1\)"),
        (["loss=focal,fokal"], r"loss=fokal does not exist. Did you mean focal\? .*\(job loss=fokal\)"),
        (["optimizer.rate=1,2"], "optimizer.rate: no such key"),
        (["seed=range(0)"], "seed has no values"),
        (["optimizer.lr=interval(0.1,1)"], "a grid needs a list, not an interval"),
    ],
)
def test_a_job_that_cannot_be_composed_is_named(composer: Composer, words: list[str], message: str):
    with pytest.raises(UserError, match=message.replace(" .*", r".*")):
        grid(composer, [*WORDS, *words])


def test_latest_is_written_down_as_the_run_that_it_is_now(composer: Composer, tmp_path: Path):
    def finish(name: str) -> Path:
        path = tmp_path / "pretrain" / "digits" / name
        path.mkdir(parents=True)
        write_run(path, {"id": name, "stage": "pretrain", "status": "done"})
        return path

    first = finish("a")
    (job,) = grid(composer, ["stage=finetune", f"output_dir={tmp_path}"])
    finish("b")
    assert job.config["init"] == str(first)


def test_kinds_differ_in_more_than_numbers(composer: Composer):
    words = [*WORDS, "seed=0,1", "optimizer.lr=0.1,0.2", "optimizer.weight_decay=0,0.1"]
    assert len({group_key(job.config) for job in grid(composer, words)}) == 1
    for word in (
        "loss=cross_entropy,focal",
        "backbone.hidden=[8],[16]",
        "trainer.max_epochs=1,2",
        "strategy=full,linear_probe",
    ):
        assert len({group_key(job.config) for job in grid(composer, [*WORDS, word])}) == 2


def test_a_yaml_edited_later_changes_no_job(tmp_path: Path):
    conf = tmp_path / "conf"
    shutil.copytree(main.CONF, conf)
    jobs = grid(Composer([conf]), [*WORDS, "seed=0,1"])
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", WORDS, "val/accuracy", "max", {"commit": None}, jobs)
    manifest.write()
    (conf / "optimizer" / "adamw.yaml").write_text("_target_: torch.optim.AdamW\nlr: 7\n")
    again = Manifest.read(tmp_path / "sweep")
    assert [job.config for job in again.jobs] == [job.config for job in jobs]
    assert again.jobs[0].config["optimizer"]["lr"] != 7


def test_a_changed_or_damaged_plan_is_refused(tmp_path: Path, composer: Composer):
    jobs = grid(composer, [*WORDS, "seed=0,1"])
    folder = tmp_path / "sweep"
    Manifest(folder, "finetune", "digits", WORDS, "val/accuracy", "max", {"commit": None}, jobs).write()
    path = folder / "manifest.json"
    complete = path.read_text()
    plan = json.loads(complete)
    plan["jobs"][1]["config"]["optimizer"]["lr"] = 1.0
    write_record(path, plan)
    with pytest.raises(UserError, match=f"the config of {jobs[1].name} was changed"):
        Manifest.read(folder)
    path.write_text(complete[:-100])
    with pytest.raises(UserError, match="damaged"):
        Manifest.read(folder)
    with pytest.raises(UserError, match=r"has no manifest.json"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("name", "../../victim", "is not a valid folder name"),
        ("name", "SAME", "two jobs have the same name"),
        ("needs", "nobody", "which is not a job"),
    ],
)
def test_a_plan_that_could_harm_is_damaged(tmp_path: Path, composer: Composer, key: str, value: str, message: str):
    jobs = grid(composer, [*WORDS, "seed=0,1"])
    folder = tmp_path / "sweep"
    Manifest(folder, "finetune", "digits", WORDS, "val/accuracy", "max", {"commit": None}, jobs).write()
    plan = json.loads((folder / "manifest.json").read_text())
    plan["jobs"][1][key] = plan["jobs"][0]["name"] if value == "SAME" else value
    write_record(folder / "manifest.json", plan)
    with pytest.raises(UserError, match=message):
        Manifest.read(folder)


def test_a_frozen_config_with_an_interpolation_is_refused(tmp_path: Path, composer: Composer):
    (job,) = grid(composer, WORDS)
    config = copy.deepcopy(job.config)
    config["optimizer"]["weight_decay"] = "${oc.create:{_target_:numpy.save,file:/tmp/x,arr:1}}"
    manifest = Manifest(tmp_path, "finetune", "digits", [], None, "max", {}, [Job("0", {}, config)])
    with pytest.raises(UserError, match="a saved config has no interpolations"):
        manifest.check()


def test_a_plan_that_names_foreign_code_is_refused(tmp_path: Path, composer: Composer):
    (job,) = grid(composer, WORDS)
    config = copy.deepcopy(job.config)
    config["loss"] = {"_target_": "os.system", "command": "true"}
    manifest = Manifest(tmp_path, "finetune", "digits", [], None, "max", {}, [Job("0", {}, config)])
    with pytest.raises(UserError, match=r"refers to os.system.*trust=\[os\]"):
        manifest.check()
    manifest.trust = ("os",)
    manifest.check()


@pytest.mark.parametrize("is_held", [False, True])
def test_what_a_killed_sweep_was_writing_is_removed_unless_another_works_on_it(is_held: bool, composed, tmp_path: Path):
    config = OmegaConf.to_container(composed(*WORDS), resolve=True)
    manifest = Manifest(
        tmp_path / "sweep", "finetune", "digits", [], None, "max", {"commit": None}, [Job("a", {}, config)]
    )
    manifest.write()
    (left := manifest.folder / ".sweep.html.0123abcd.tmp").touch()
    run = RunFolder.create(OmegaConf.create(config), manifest.path("a").parent, "a")
    if not is_held:
        run.lock.release()
    reopen(manifest.folder, (), ())
    assert left.exists() == is_held
