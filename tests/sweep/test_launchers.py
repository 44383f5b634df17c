"""Third-party launchers: the same sweep with the same numbers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf
from tests.conftest import Outcome

from warmstart.core.errors import Interrupted
from warmstart.run.lock import Lock
from warmstart.run.manifest import Job, Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep import external
from warmstart.sweep.external import launch_externally, quoted
from warmstart.sweep.job import open_run
from warmstart.sweep.schedule import Rules

WORDS = ("stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=1", "trainer.accelerator=cpu")
ODD = "it's here, a=b"
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_submitit_launcher", ["hydra.launcher.timeout_min=5"]),
    "ray": ("hydra_ray_launcher", ["+hydra.launcher.ray.init.num_cpus=2"]),
}
MINE = """
from warmstart.loss import accepts
from warmstart.loss.brier import brier

fine = takes("category")(lambda *batch: brier(*batch))

@accepts("category")
def broken(outputs, targets):
    raise RuntimeError("boom")
"""


@pytest.fixture
def sweep(command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """As `warmstart -m WORDS` in a working directory whose modules can be found."""

    def call(*words: str) -> Outcome:
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        monkeypatch.chdir(work)
        monkeypatch.syspath_prepend(work)
        return command("-m", *words, output_dir=quoted(Path(ODD)))

    return call


def sweep_of(cwd: Path) -> Manifest:
    (folder,) = cwd.glob("*/sweep/finetune/digits/*")
    return Manifest.read(folder)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_comes_to_the_same_numbers(launcher: str, sweep, cli, tmp_path: Path):
    package, settings = LAUNCHERS[launcher]
    pytest.importorskip(f"hydra_plugins.{package}")
    done = sweep(f"hydra/launcher={launcher}", *settings, *WORDS, "optimizer.lr=0.003", "sweep.preflight=false")
    assert done.status == 0, done.err
    assert "1 jobs: 1 done" in done.err
    assert "Traceback" not in done.err
    manifest = sweep_of(Path.cwd())
    (job,) = manifest.jobs
    alone = cli(*WORDS, "optimizer.lr=0.003", output_dir=tmp_path / "alone").record("finetune")
    assert manifest.record(job.name)["metrics"] == alone["metrics"]
    assert manifest.record(job.name)["config_sha256"] == job.sha256
    assert len((manifest.folder / "leaderboard.csv").read_text().splitlines()) == 2
    assert [path.name for path in Path.cwd().iterdir()] == [ODD]


def test_a_job_that_fails_costs_the_others_nothing_and_own_code_needs_no_word_of_trust(sweep, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "mine.py").write_text(MINE)
    losses = ("loss=brier", "loss._target_=mine.broken,mine.fine", "sweep.preflight=false")
    done = sweep("hydra/launcher=joblib", "hydra.launcher.n_jobs=1", *WORDS, *losses)
    assert done.status == 3, done.err
    assert "Traceback" not in done.err
    assert "0-mine.broken: RuntimeError: boom" in done.err
    manifest = sweep_of(Path.cwd())
    assert [manifest.state(job.name) for job in manifest.jobs] == ["failed", "done"]


class Other:
    """A launcher that notes what it is given and has each job end as `ends` says."""

    def __init__(self, manifest: Manifest, ends: Callable[[str], str]):
        self.manifest, self.ends, self.rounds = manifest, ends, []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> None:
        values = [dict(word.split("=", 1) for word in words) for words in job_overrides]
        self.rounds.append([Path(value["sweep.job"].strip("'")).name for value in values])
        for name in self.rounds[-1]:
            end(self.manifest, name, self.ends(name))


def end(manifest: Manifest, name: str, status: str) -> None:
    if status == "lost":
        raise RuntimeError("a worker died")
    with held(manifest.lock(name)) as lock:
        open_run(manifest, manifest.by_name[name], lock).update(status=status)


@contextlib.contextmanager
def held(lock: Lock) -> Iterator[Lock]:
    assert lock.acquire()
    yield lock
    lock.release()


@pytest.fixture
def rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """The jobs that a launcher is given, round by round."""

    def call(needs: dict[str, str | None], ends: Callable[[str], str], retries: int = 0, **ended: str):
        config = {"stage": "finetune", "experiment": "digits"}
        jobs = [Job(name, {}, {**config, "name": name}, need) for name, need in needs.items()]
        manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], "val/accuracy", "max", {}, jobs)
        manifest.write()
        for name, status in ended.items():
            end(manifest, name, status)
        other = Other(manifest, ends)
        monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **context: other)
        hydra = {"sweep": {"dir": "."}, "runtime": {"choices": {"hydra/launcher": "other"}}}
        launch_externally(manifest, {"config": OmegaConf.create({"hydra": hydra, "trust": []})}, Rules(retries=retries))
        return other.rounds

    return call


def test_what_is_over_is_not_handed_over_again(rounds):
    needs = dict.fromkeys("abcd")
    assert rounds(needs, lambda name: "done", a="done", b="failed", c="running") == [["c", "d"]]


def test_nothing_left_is_no_call_of_the_launcher(rounds):
    assert rounds(dict.fromkeys("ab"), lambda name: "done", a="done", b="done") == []


def test_a_job_waits_for_the_one_it_needs(rounds):
    assert rounds({"a": None, "b": "a", "c": "b"}, lambda name: "done") == [["a"], ["b"], ["c"]]


def test_what_needs_a_job_that_failed_never_starts(rounds):
    assert rounds({"a": None, "b": "a"}, lambda name: "failed") == [["a"]]


def test_a_failure_is_tried_again_as_often_as_asked(rounds):
    assert rounds(dict.fromkeys("ab"), {"a": "done", "b": "failed"}.get, retries=2) == [["a", "b"], ["b"], ["b"]]


def test_a_lost_worker_of_a_launcher_is_reported_in_a_line(rounds, capfd):
    assert rounds(dict.fromkeys("a"), lambda name: "lost") == [["a"]]
    assert capfd.readouterr().err.splitlines()[1:] == ["error: other: RuntimeError: a worker died"]


@pytest.mark.parametrize("path", ["/a b/c,d=e", "/it's", "/[x]{y}", "relative/#1"])
def test_any_path_survives_hydras_grammar(path: str):
    override = OverridesParser.create().parse_override(f"sweep.job={quoted(Path(path))}")
    assert override.value() == path


@pytest.mark.parametrize("by_hand", [False, True], ids=["submitit", "Ctrl-C"])
def test_submitit_that_queues_a_job_again_has_its_exit_status(by_hand: bool, tmp_path: Path, monkeypatch):
    job = Job("a", {}, {"stage": "finetune"})
    Manifest(tmp_path / "sweep", "finetune", "digits", [], None, "max", {}, [job]).write()

    def interrupted(*_):
        try:
            try:
                if by_hand:
                    raise KeyboardInterrupt
                sys.exit(144)
            except KeyboardInterrupt:
                sys.exit(1)  # as Lightning does
        except SystemExit as stop:
            try:
                raise KeyboardInterrupt from stop  # as `trainer.stopping.handling` does
            except KeyboardInterrupt as error:
                raise Interrupted(tmp_path) from error  # as `RunFolder.recording` does

    monkeypatch.setattr(external, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt if by_hand else SystemExit):
        external.run(tmp_path / "sweep" / "runs" / "a", (), StageRunner())


def test_the_default_launcher_refuses_third_party_sweepers(sweep):
    done = sweep("hydra/sweeper=basic", *WORDS, "seed=0,1")
    assert done.status == 2, done.err
    assert done.err == "error: hydra/launcher=pool needs hydra/sweeper=warmstart, which is the default\n"
