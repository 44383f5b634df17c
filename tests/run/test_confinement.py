"""Untrusted runs, sweeps and models that name paths outside their folder are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from tests.records import change_run

from warmstart.config.resolve import with_run_experiment
from warmstart.core.errors import UserError
from warmstart.core.trust import check_targets
from warmstart.data.preprocess import tokenizing
from warmstart.huggingface.files import shard_names, tensor_names
from warmstart.huggingface.load import check_names, read_tokenizer_files
from warmstart.run.checksums import write_checksums
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256
from warmstart.run.lineage import ancestors, ancestry
from warmstart.run.manifest import Job, Manifest
from warmstart.run.saved import open_model
from warmstart.stages.runner import StageRunner
from warmstart.sweep.engine import reopen
from warmstart.sweep.job import run_job

pytestmark = pytest.mark.quick

CONFIG = {"stage": "finetune", "experiment": "digits", "seed": 3, "trust": [], "resume": None}
SPEC = {"modality": "vector", "shape": [2]}


def made_run(folder: Path, name: str | None = None, **record: object) -> RunFolder:
    run = RunFolder.create(OmegaConf.create(CONFIG), folder, name)
    run.update(**{"status": "done", **record})
    run.lock.release()
    return run


def with_config(run: RunFolder, text: str) -> RunFolder:
    """The run with another config, and checksums taken again: as a stranger could."""
    (run.path / "config.yaml").write_text(text)
    change_run(run.path)
    return RunFolder.open(run.path)


@pytest.mark.parametrize(
    "names",
    [
        {"experiment": "../../elsewhere"},
        {"experiment": "/elsewhere"},
        {"experiment": ["digits"]},
        {"stage": ".."},
        {"stage": "fine/tune"},
        {"id": "../1"},
        {"id": "1\x1b[2J"},
    ],
    ids=str,
)
def test_names_in_a_record_or_config_cannot_lead_out_of_the_output_folder(names: dict[str, object], tmp_path: Path):
    run = with_config(made_run(tmp_path), OmegaConf.to_yaml({**CONFIG, **names}))
    with pytest.raises(UserError, match=r"config\.yaml is damaged: its \w+ is .* not a valid name"):
        run.config()
    run.update(**names)
    with pytest.raises(UserError, match=r"run\.json is damaged: its \w+ is .* not a valid name"):
        RunFolder.open(run.path)


def test_an_experiment_in_folders_is_a_name(tmp_path: Path):
    run = made_run(tmp_path, experiment="mine/größe 2")
    assert RunFolder.open(run.path).record["experiment"] == "mine/größe 2"


def test_nothing_is_written_where_a_run_to_be_run_again_says(cli, tmp_path: Path):
    run = with_config(made_run(tmp_path / "given"), OmegaConf.to_yaml({**CONFIG, "experiment": "../../elsewhere"}))
    outcome = cli("stage=rerun", f"run={run.path}")
    assert outcome.status == 2
    assert "its experiment is '../../elsewhere', which is not a valid name" in outcome.error
    assert not (tmp_path / "elsewhere").exists()
    run.update(experiment="../../elsewhere")
    config = OmegaConf.create({**CONFIG, "stage": "evaluate", "run": str(run.path), "output_dir": str(tmp_path)})
    with pytest.raises(UserError, match="not a valid name"):
        with_run_experiment(config)


def test_a_config_cannot_say_what_code_is_trusted_or_which_run_to_resume(tmp_path: Path):
    run = with_config(made_run(tmp_path), OmegaConf.to_yaml({**CONFIG, "trust": ["os"], "resume": "elsewhere"}))
    config = run.config(("mine",))
    assert (list(config.trust), config.resume) == (["mine"], None)


@pytest.mark.parametrize(
    "node",
    [
        {"${oc.env:HOME}": 1},
        {"data": {"files": [["a", {"root": "${oc.env:HOME}"}]]}},
        {"hydra": {"run": {"dir": "${new_id:}"}}},
        {"seed": "${x}"},
        {"seed": "${for_hub:{_target_:x.y},1}"},
    ],
    ids=["key", "nested list", "hydra", "value", "argument"],
)
def test_a_config_has_no_interpolations_anywhere(node: dict[str, object], tmp_path: Path):
    run = with_config(made_run(tmp_path), json.dumps({**CONFIG, **node}))
    with pytest.raises(UserError, match=r"contains .*\$\{.* no interpolations"):
        run.config()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("run.json", "[" * 100_000),
        ("run.json", '{"id": "1", "stage": "finetune", "status": "done", "seed": ' + "1" * 5000 + "}"),
        ("config.yaml", "a: &a [x]\n" + "".join(f"k{n}: &k{n} [{'*a,' * 99}]\n" for n in range(200))),
        ("model/config.json", '{"spec":' * 100_000),
        ("model/preprocessor.json", "[" * 100_000),
        ("manifest.json", "[" * 100_000),
    ],
    ids=["depth", "number", "aliases", "card", "preprocessor", "plan"],
)
def test_a_file_made_to_exhaust_its_reader_is_damaged(file: str, text: str, tmp_path: Path):
    run = made_run(tmp_path)
    made_model(run.path / "model")
    (run.path / file).write_text(text)
    if file == "config.yaml":
        change_run(run.path)
    opened = {
        "model": lambda: open_model(run.path / "model"),
        "manifest.json": lambda: Manifest.read(run.path),
    }
    with pytest.raises(UserError, match=f"{file} is damaged"):
        opened.get(file.partition("/")[0], lambda: RunFolder.open(run.path).config())()


def made_plan(folder: Path, **config: object) -> Manifest:
    own = {**CONFIG, **config}
    Manifest(folder, "finetune", "digits", [], None, "min", {}, [Job("job0", {}, own)]).write()
    return Manifest.read(folder)


def test_the_jobs_of_a_plan_are_as_confined_as_a_run(tmp_path: Path):
    made_plan(tmp_path / "0").check()
    with pytest.raises(UserError, match=r"trusts code of os; .* add trust=\[os\]"):
        made_plan(tmp_path / "1", trust=["os"]).check()
    with pytest.raises(UserError, match="resumes another run, /elsewhere"):
        made_plan(tmp_path / "2", resume="/elsewhere").check()
    with pytest.raises(UserError, match=r"manifest\.json is damaged: its experiment is '\.\./x'"):
        made_plan(tmp_path / "3", experiment="../x")


def test_hashes_of_other_files_are_not_compared(tmp_path: Path):
    plan = made_plan(tmp_path / "sweep")
    digest = config_sha256({})
    plan.record_checksums({"runs/../../other/run.json": digest})
    with pytest.raises(UserError, match=r"manifest\.json is damaged: .*other.* is not a file of the sweep"):
        Manifest.read(plan.folder)


def made_model(folder: Path, parent: Path | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    card = {"spec": SPEC, "backbone": {"_target_": "x"}}
    if parent is not None:
        card["parent"] = {"path": str(parent), "weights_sha256": "0", "reinitialize": []}
    (folder / "config.json").write_text(json.dumps(card))
    (folder / "preprocessor.json").write_text("{}")
    for name in ("adapter" if parent else "model", "head"):
        save_file(
            {"x:scale": torch.ones(1)} if name == "adapter" else {"x": torch.ones(1)}, folder / f"{name}.safetensors"
        )
    write_checksums(folder)
    return folder


@pytest.mark.parametrize("size", [1, 2, 5])
def test_adapters_that_are_each_others_parents_are_refused(size: int, tmp_path: Path):
    folders = [tmp_path / str(number) / "model" for number in range(size)]
    for number, folder in enumerate(folders):
        made_model(folder, folders[(number + 1) % size])
    with pytest.raises(UserError, match=r"names the model as (its own parent|an ancestor of its parent)") as error:
        open_model(folders[0])
    assert len(str(error.value).splitlines()) == 1


def test_a_circle_further_up_and_an_endless_chain_are_refused(tmp_path: Path):
    a, b, c = (tmp_path / name for name in "abc")
    for folder, parent in ((a, b), (b, c), (c, b)):
        made_model(folder, parent)
    with pytest.raises(UserError, match="is its own ancestor"):
        open_model(a)
    for number in range(60):
        made_model(tmp_path / str(number), tmp_path / str(number + 1))
    with pytest.raises(UserError, match="has more than 50 ancestors"):
        open_model(tmp_path / "0")


def test_runs_that_come_from_each_other_have_an_ancestry_with_an_end(tmp_path: Path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, other in (paths, paths[::-1]):
        parent = {"id": other.name, "path": str(other / "model"), "weights_sha256": "0"}
        made_run(tmp_path, path.name, id=path.name, parent=parent)
    assert ancestry({"id": "a", "path": str(paths[0] / "model")}) == ["finetune b", "finetune a"]


def test_a_run_depends_on_its_teacher_and_on_the_ancestors_of_its_teacher(tmp_path: Path):
    record = {name: {"id": name, "path": str(tmp_path / name / "model"), "weights_sha256": "0"} for name in "abc"}
    made_run(tmp_path, "a", id="a", parent=None)
    made_run(tmp_path, "b", id="b", parent=record["a"])
    made_run(tmp_path, "c", id="c", parent=None, teacher=record["b"])
    last = made_run(tmp_path, "d", id="d", parent=record["c"])
    assert [run.record["id"] for run in ancestors(last)] == ["d", "c", "b", "a"]
    assert ancestry(last.record["parent"]) == ["finetune c"]


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/other.safetensors",
        "sub/a.safetensors",
        "a\\b.safetensors",
        "pytorch_model.bin",
        3,
        ["a"],
    ],
    ids=str,
)
def test_an_index_names_safetensors_files_of_its_folder_alone(name: object, tmp_path: Path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    for read in (shard_names, tensor_names):
        with pytest.raises(UserError, match="which is not a safetensors file of its folder"):
            read("hf:x", tmp_path)


def test_a_tokenizers_files_are_those_of_its_folder_or_of_the_cache_of_the_hub(tmp_path: Path):
    folder, blobs = tmp_path / "models--a" / "snapshots" / "1", tmp_path / "models--a" / "blobs"
    folder.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "0").write_text("from the cache")
    (folder / "merges.txt").symlink_to("../../blobs/0")
    assert read_tokenizer_files(folder, "") == {"merges.txt": "from the cache"}
    (tmp_path / "secret").write_text("secret")
    (folder / "vocab.txt").symlink_to("../../../secret")
    with pytest.raises(UserError, match=r"vocab\.txt is a link to .*secret, outside of the model folder"):
        read_tokenizer_files(folder, "")
    (folder / "tokenizer_config.json").write_text('{"fast_tokenizer_files": ["../../tokenizer.4.0.json"]}')
    with pytest.raises(UserError, match=r"fast_tokenizer_files has '\.\./\.\./tokenizer"):
        check_names("hf:x", folder)


@pytest.mark.parametrize("name", ["../../secret.json", "/secret.json", "modeling.py", "config.json", "sub/vocab.txt"])
def test_a_preprocessor_writes_tokenizer_files_alone_into_an_export(name: str, tmp_path: Path):
    folder = tmp_path / "a" / "export"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(UserError, match="is not a tokenizer file"):
        tokenizing.write(folder, "{}", {}, 8, {name: "{}"})
    assert {path.name for path in tmp_path.rglob("*")} <= {"a", "export", "config.json", "tokenizer.json"}
    assert (folder / "config.json").read_text() == "{}"


def test_a_job_of_a_sweep_whose_folder_holds_a_link_is_not_run(tmp_path: Path):
    job = Job("a", {}, CONFIG)
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], None, "max", {}, [job])
    manifest.write()
    (tmp_path / "elsewhere").mkdir()
    manifest.path("a").mkdir()
    (manifest.path("a") / "checkpoints").symlink_to(tmp_path / "elsewhere")
    outcome = run_job(manifest, job, StageRunner().run)
    assert outcome.state == "failed"
    assert "checkpoints is a symbolic link" in outcome.error
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("name", ["runs/a", "jobs.csv", "locks/report", "curves/a"])
def test_a_sweep_that_holds_a_link_is_not_continued(name: str, tmp_path: Path):
    folder = tmp_path / "sweep"
    Manifest(folder, "finetune", "digits", [], None, "max", {"commit": None}, [Job("a", {}, CONFIG)]).write()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name} is a symbolic link"):
        reopen(folder, [], ())
    assert not (tmp_path / "elsewhere").exists()


def test_a_saved_config_may_name_loggers_that_stay_in_its_folder_only(tmp_path: Path):
    def config(name: str) -> dict:
        return {"logger": {"x": {"_target_": f"pytorch_lightning.loggers.{name}"}}}

    check_targets(config("CSVLogger"), tmp_path)
    with pytest.raises(UserError, match=r"WandbLogger, .* add trust=\[pytorch_lightning\]"):
        check_targets(config("WandbLogger"), tmp_path)
    check_targets(config("WandbLogger"), tmp_path, ("pytorch_lightning",))
