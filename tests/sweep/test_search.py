"""Search with Optuna: search space, seeds within a trial, pruning, and resuming."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from warmstart import main
from warmstart.core.errors import UserError
from warmstart.core.reading import file_sha256
from warmstart.run.manifest import Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep import journal, launch, search, study
from warmstart.sweep.plan import Composer
from warmstart.sweep.schedule import Rules

FIXED = (
    "init=scratch",
    "visualization=[]",
    "trainer.max_epochs=2",
    "trainer.min_steps=null",
    "data.labels_per_class=5",
)
HERE = {"workers": 0}


@pytest.fixture
def planned(composed, tmp_path: Path) -> Callable[..., Manifest]:
    """The frozen plan of a search, in a folder of its own."""

    def call(*words: str, name: str = "sweep") -> Manifest:
        words = ("sweep=optuna", *FIXED, *words)
        single = [word for word in words if word.startswith("sweep.")]
        config = composed("sweep=optuna", *single, *(word for word in words if word == "seed=3"))
        composer = Composer([main.CONF])
        settings, _ = search.plan(composer, config, [word for word in words if word not in single])
        path = tmp_path / name
        manifest = Manifest(path, "finetune", "digits", list(words), "val/accuracy", "max", {}, [], settings)
        manifest.write([main.CONF])
        return manifest

    return call


def study_of(manifest: Manifest) -> optuna.Study:
    return study.open_study(manifest)


def states(manifest: Manifest) -> dict[str, str]:
    return {name: manifest.state(name) for name in manifest.names()}


def scores(manifest: Manifest) -> dict[str, dict[str, float]]:
    return {name: manifest.record(name)["metrics"] for name in manifest.names()}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("optimizer.lr=interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1, log=True)),
        ("optimizer.lr=interval(0.1,0.2)", FloatDistribution(0.1, 0.2)),
        ("optimizer.lr=tag(log,interval(0.1,0.2))", FloatDistribution(0.1, 0.2, log=True)),
        ("optimizer.lr=tag(linear,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1)),
        ("data.batch_size=int(interval(8,64))", IntDistribution(8, 64)),
        ("data.batch_size=range(8,33,8)", IntDistribution(8, 32, step=8)),
        ("data.batch_size=range(8,32,8)", IntDistribution(8, 24, step=8)),
        ("loss=cross_entropy,focal", CategoricalDistribution(["cross_entropy", "focal"])),
        ("optimizer.lr=choice(0.1,0.2)", CategoricalDistribution([0.1, 0.2])),
    ],
)
def test_overrides_of_hydra_describe_the_search_space(word: str, expected):
    (override,) = Composer([main.CONF]).parse([word])
    assert study.distribution(override) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the search space is empty"),
        (("seed=0,1",), "sweep.seeds=N"),
        (("loss=cross_entropy,focal", "sweep.sampler=best"), "sweep.sampler=best: must be one of tpe"),
        (("loss=cross_entropy,focal", "sweep.pruner=hard"), "sweep.pruner=hard: must be one of none"),
        (("optimizer.lr=interval(1e-3,1e-1)", "sweep.sampler=grid"), "a grid needs a list or a range"),
        (("optimizer.lr=interval(1e-1,1e-3)",), "low"),
        (("optimizer.lr=interval(-1,1e-1)",), "optimizer.lr=-1.0: must be a number above 0"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(planned, words: tuple[str, ...], message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        planned(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_the_same_seed_searches_the_same(planned, sampler: str):
    words = ("optimizer.lr=interval(1e-4,1e-1)", "optimizer.weight_decay=interval(0.0,0.1)", "sweep.trials=3")
    first, second = (planned(*words, f"sweep.sampler={sampler}", name=name) for name in ("first", "second"))
    for manifest in (first, second):
        launch.run(manifest, HERE, Rules(), StageRunner())
    chosen = [[trial.params for trial in study_of(manifest).trials] for manifest in (first, second)]
    assert len(chosen[0]) == 3
    assert len({params["optimizer.lr"] for params in chosen[0]}) == 3
    assert chosen[0] == chosen[1]
    assert scores(first) == scores(second)


def test_a_grid_tries_each_combination_once(planned):
    manifest = planned("loss=cross_entropy,focal", "data.batch_size=8,16", "sweep.sampler=grid", "sweep.trials=9")
    launch.run(manifest, HERE, Rules(), StageRunner())
    tried = [tuple(trial.params.values()) for trial in study_of(manifest).trials]
    assert sorted(tried) == [("cross_entropy", 8), ("cross_entropy", 16), ("focal", 8), ("focal", 16)]


def test_a_trial_counts_as_the_mean_of_its_seeds(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=2", "sweep.seeds=2", "sweep.pruner=none")
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert states(manifest) == {f"trial00{trial}-seed{seed}": "done" for trial in (0, 1) for seed in (0, 1)}
    for trial in study_of(manifest).trials:
        values = [scores(manifest)[f"trial00{trial.number}-seed{seed}"]["val/accuracy"] for seed in (0, 1)]
        assert trial.value == pytest.approx(sum(values) / 2)
        assert manifest.record(f"trial00{trial.number}-seed1")["sweep"]["values"] == {**trial.params, "seed": 1}


def test_a_bad_trial_is_pruned_and_its_other_seeds_are_not_run(planned):
    words = ("optimizer.lr=0.02,1e-9", "sweep.sampler=grid", "sweep.seeds=2", "trainer.max_epochs=3", "seed=3")
    manifest = planned(*words)
    study = study_of(manifest)
    for _ in range(5):  # what the median pruner wants to have seen before it prunes
        good = {"optimizer.lr": CategoricalDistribution([0.02, 1e-9])}
        steps = {step: 0.9 for step in range(1, 40)}
        trial = optuna.trial.create_trial(
            params={"optimizer.lr": 0.02}, distributions=good, value=0.9, intermediate_values=steps
        )
        study.add_trial(trial)
    launch.run(manifest, HERE, Rules(), StageRunner())
    pruned = {name for name, state in states(manifest).items() if state == "pruned"}
    (bad,) = [trial for trial in study_of(manifest).trials if trial.params["optimizer.lr"] == 1e-9]
    assert bad.state == optuna.trial.TrialState.PRUNED
    assert f"trial00{bad.user_attrs['slot']}-seed3" in pruned
    assert f"trial00{bad.user_attrs['slot']}-seed4" not in states(manifest)
    record = manifest.record(sorted(pruned)[0])
    assert "other trials are better" in record["error"]
    assert "val/accuracy" in record["metrics"]


def test_a_trial_that_fails_is_counted_and_the_search_goes_on(planned):
    manifest = planned("optimizer.lr=0.01,1e30", "sweep.sampler=grid", "optimizer=sgd", "trainer.log_every_n_steps=1")
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert sorted(states(manifest).values()) == ["done", "failed"]
    assert sorted(trial.state.name for trial in study_of(manifest).trials) == ["COMPLETE", "FAIL"]


def test_a_search_goes_on_where_it_was_left(planned):
    words = ("optimizer.lr=interval(1e-4,1e-1)", "sweep.trials=3", "sweep.seeds=2", "sweep.pruner=none")
    calm, torn = planned(*words, name="calm"), planned(*words, name="torn")
    launch.run(calm, HERE, Rules(), StageRunner())
    search.run_trial(torn, 0, StageRunner())
    trial = study.ask(torn, 1)  # asked for by a process that died in the middle of its second seed
    del trial
    study_of(torn).ask(study.space(torn))  # and by one that died before it took it
    again = Manifest.read(torn.folder)
    before = {name: again.record(name)["id"] for name in again.names()}
    launch.run(again, HERE, Rules(), StageRunner())
    assert {name: again.record(name)["id"] for name in before} == before
    assert scores(again) == scores(calm)
    params = [trial.params for trial in study_of(again).trials if trial.state.name == "COMPLETE"]
    assert params == [trial.params for trial in study_of(calm).trials]


def test_a_yaml_edited_during_a_search_changes_no_trial(planned, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    shutil.copytree(main.CONF, tmp_path / "conf")
    monkeypatch.setattr(main, "CONF", tmp_path / "conf")
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=2", "sweep.sampler=grid")
    (tmp_path / "conf" / "loss" / "cross_entropy.yaml").write_text("broken")
    (tmp_path / "conf" / "stage" / "finetune.yaml").write_text("broken: [")
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert set(states(manifest).values()) == {"done"}
    plan = json.loads((manifest.folder / "manifest.json").read_text())
    assert plan["search"]["trials"] == 2


def test_a_trial_that_cannot_be_composed_has_failed(planned):
    words = ("trainer.max_epochs=1,-1", "trainer.max_steps=5,-1", "sweep.sampler=grid", "sweep.trials=4")
    manifest = planned(*words)
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert len(states(manifest)) == 3
    assert study.failed(manifest) == ["trial003"]


def test_a_trial_that_is_over_stays_as_it_is(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=1", "sweep.sampler=grid")
    first = search.run_trial(manifest, 0, StageRunner())
    record = manifest.record("trial000-seed0")
    assert search.run_trial(manifest, 0, StageRunner()) == first
    assert manifest.record("trial000-seed0") == record


def test_a_torn_line_of_the_study_is_dropped_and_a_damaged_study_is_named(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=2", "sweep.sampler=grid")
    search.run_trial(manifest, 0, StageRunner())
    path = manifest.folder / "study.log"
    complete = path.read_bytes()
    path.write_bytes(complete + b'{"op_code": 5, "wor')
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert [trial.state.name for trial in study_of(manifest).trials] == ["COMPLETE", "COMPLETE"]
    path.write_bytes(b"garbage\n" + complete)
    with pytest.raises(UserError, match=r"study.log is damaged"):
        study_of(manifest)


def test_what_was_read_of_a_study_is_not_read_again(planned, monkeypatch: pytest.MonkeyPatch):
    manifest = planned("optimizer.lr=interval(1e-4,1e-1)", "sweep.trials=9", "sweep.sampler=random")
    checked, chained = [], journal.chained
    monkeypatch.setattr(journal, "chained", lambda *line: checked.append(line) or chained(*line))

    def effort(slots: range) -> int:
        checked.clear()
        for slot in slots:
            number = study.ask(manifest, slot).number
            study.note_scores(manifest, number, [0.5])
            study.tell(manifest, number, "done", 0.5)
        return len(checked)

    assert effort(range(1, 4)) >= effort(range(4, 7))


def test_processes_that_share_a_study_see_each_others_trials(planned):
    manifest = planned("optimizer.lr=interval(1e-4,1e-1)", "sweep.trials=9", "sweep.sampler=random")
    study.ask(manifest, 0)
    for slot in (1, 2):
        child = os.fork()
        if child == 0:
            os._exit(0 if study.ask(manifest, slot).number == slot else 1)
        assert os.waitpid(child, 0)[1] == 0
    study.tell(manifest, 2, "failed", None)
    assert study.ask(manifest, 3).number == 3
    assert study.failed(manifest) == ["trial002"]
    assert [trial.user_attrs["slot"] for trial in study_of(manifest).trials] == [0, 1, 2, 3]
    study.check_study(manifest)


def test_a_study_that_names_what_the_plan_does_not_offer_is_refused(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=1", "sweep.sampler=grid")
    other = {"+optimizer.eps": CategoricalDistribution(["{_target_:numpy.save,file:/tmp/x,arr:1}"])}
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING,
        params={"+optimizer.eps": other["+optimizer.eps"].choices[0]},
        distributions=other,
        user_attrs={"slot": 0},
    )
    study_of(manifest).add_trial(trial)
    outcome = search.run_trial(manifest, 0, StageRunner())
    assert outcome.state == "failed"
    assert "is outside the planned search space" in outcome.error


def test_foreign_code_in_the_copy_of_the_conf_folder_is_refused(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=1", "sweep.sampler=grid")
    path = manifest.folder / "conf" / "optimizer" / "adamw.yaml"
    path.write_text("_target_: numpy.save\nlr: 0.1\n")
    with pytest.raises(UserError, match=f"{path} is damaged or was changed"):
        search.check(manifest)
    manifest.checksums["conf/optimizer/adamw.yaml"] = file_sha256(path)  # as a stranger could
    with pytest.raises(UserError, match=r"numpy.save, which is not part of warmstart"):
        search.check(manifest)
    assert "numpy.save" in search.run_trial(manifest, 0, StageRunner()).error


def test_a_trial_is_given_up_between_seeds_only_where_it_is_worse_than_most(planned):
    manifest = planned("optimizer.lr=0.01,0.001", "sweep.trials=9", "sweep.seeds=3")
    choices = {"optimizer.lr": CategoricalDistribution([0.01, 0.001])}
    for rivals, score in enumerate((0.5, 0.6, 0.7, 0.8, 0.9)):
        assert not study.is_below_median(manifest, [0.0]), f"{rivals} rivals are too few"
        attrs = {"slot": rivals, "scores": [score, 1.0, 1.0]}
        params = {"optimizer.lr": 0.01}
        trial = optuna.trial.create_trial(params=params, distributions=choices, value=score, user_attrs=attrs)
        study_of(manifest).add_trial(trial)
    assert study.is_below_median(manifest, [0.69])
    assert not study.is_below_median(manifest, [0.7])
    assert study.is_below_median(manifest, [0.8, 0.8])
    assert not study.is_below_median(manifest, [0.8, 0.95])
