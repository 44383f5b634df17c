"""`init=hf:`: the resolved config, and errors before weights are loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from tests.huggingface.test_text import TOKENIZER, saved_folder

from warmstart.config.resolve import with_initial_backbone
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.huggingface.configs.text import TARGET
from warmstart.huggingface.load import open_hub
from warmstart.huggingface.text import HuggingFace
from warmstart.training.start import check_backbone

DATA = {"_target_": "warmstart.data.sources.text.text_table.TextTable"}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_folder(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "bert")


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def config_for(folder: Path | str, **backbone: object) -> OmegaConf:
    settings = {"stage": "finetune", "seed": 3, "width": "${seed}", "init": f"hf:{folder}", "backbone": backbone}
    config = OmegaConf.create(settings)
    OmegaConf.set_struct(config, True)
    return config


def test_only_the_backbone_changes_and_the_config_says_all_of_it(folder: Path):
    config = config_for(folder, _target_="x", depth=3, pooling=None)
    adopted = with_initial_backbone(config)
    assert adopted.backbone.pooling == "cls"
    assert adopted.backbone.architecture == json.loads((folder / "config.json").read_text())
    assert set(adopted.backbone) == {"_target_", "pooling", "pooler", "architecture"}
    assert {key: adopted[key] for key in adopted if key != "backbone"} == {
        key: config[key] for key in config if key != "backbone"
    }
    assert OmegaConf.is_struct(adopted)
    assert config.backbone.depth == 3
    assert with_initial_backbone(adopted) == adopted
    assert OmegaConf.create(OmegaConf.to_yaml(adopted)) == adopted


@pytest.mark.parametrize("init", ["scratch", "latest", "runs/x", None])
def test_any_other_init_is_left_alone(init: str | None):
    config = OmegaConf.create({"init": init, "backbone": {"width": 3}})
    assert with_initial_backbone(config) is config
    assert with_initial_backbone(nothing := OmegaConf.create({"stage": "report"})) is nothing


def test_shuffled_weights_have_the_same_backbone(folder: Path):
    config = config_for(folder)
    shuffled = OmegaConf.merge(config, {"init": f"shuffled:hf:{folder}"})
    assert with_initial_backbone(shuffled).backbone == with_initial_backbone(config).backbone


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_max_tokens": True}, "cls"),
    ],
)
def test_sentence_transformers_pooling_is_followed_unless_the_config_says_otherwise(
    settings: dict, pooling: str, folder: Path
):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert with_initial_backbone(config_for(folder)).backbone.pooling == pooling
    assert with_initial_backbone(config_for(folder, pooling="cls")).backbone.pooling == "cls"


def test_the_weights_are_those_of_the_file_in_one_piece_or_many(folder: Path):
    complete = open_hub(f"hf:{folder}")
    assert {value.dtype for value in complete.weights.values()} == {torch.float32}
    assert complete.preprocessor["context"] == 32
    assert complete.spec.vocabulary.mask == TOKENIZER.mask_token_id
    (folder / "model.safetensors").unlink()
    names = sorted(complete.weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    places = {}
    for name, own in halves.items():
        save_file(
            {n.removeprefix("model."): complete.weights[n] for n in own}, folder / name, metadata={"format": "pt"}
        )
        places |= {n.removeprefix("model."): name for n in own}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    pieces = open_hub(f"hf:{folder}")
    assert pieces.weights.keys() == complete.weights.keys()
    assert all(torch.equal(pieces.weights[name], complete.weights[name]) for name in names)
    assert len(pieces.weights_sha256) == 64
    assert pieces.head == {}
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="has no model-00002-of-00002"):
        with_initial_backbone(config_for(folder))


def test_a_tensor_that_the_file_lacks_is_not_made_up(folder: Path):
    complete = open_hub(f"hf:{folder}")
    kept = {n.removeprefix("model."): v for n, v in complete.weights.items() if "layer.1" not in n}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert set(open_hub(f"hf:{folder}").weights) == {f"model.{name}" for name in kept}


def replace_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json is damaged"),
        (lambda f: change(f / "config.json", auto_map={"AutoModel": "m.M"}), "needs custom code"),
        (lambda f: change(f / "tokenizer_config.json", auto_map={"AutoTokenizer": "m.T"}), "needs custom code"),
        (lambda f: change(f / "config.json", model_type="nonesuch"), "model_type=nonesuch"),
        (lambda f: change(f / "config.json", model_type="encodec"), "no text encoder or decoder"),
        (lambda f: change(f / "config.json", quantization_config={}), "full precision"),
        (lambda f: change(f / "config.json", _attn_implementation="a/kernel"), "a kernel from the hub"),
        (lambda f: change(f / "config.json", attn_implementation={"": "flash_attention_3"}), "a kernel from the hub"),
        (lambda f: change(f / "config.json", use_kernels=True), "a kernel from the hub"),
        (lambda f: change(f / "config.json", inner={"attn_implementation": "a/kernel"}), "a kernel from the hub"),
        (lambda f: change(f / "config.json", inner={"_target_": "os.system", "command": "true"}), "not part of"),
        (lambda f: change(f / "config.json", name="${oc.env:HOME}"), "has no interpolations"),
        (lambda f: change(f / "config.json", warmstart="1.0"), "backbone saved by warmstart.*without hf:"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter"),
        (replace_weights, r"no model\.safetensors.*pickle"),
        (cut_weights, "truncated or damaged"),
        (drop_tokenizer, "no tokenizer"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(spoil: Callable[[Path], None], message: str, folder: Path):
    spoil(folder)
    for refused in (lambda: with_initial_backbone(config_for(folder)), lambda: open_hub(f"hf:{folder}")):
        with pytest.raises(UserError, match=message) as error:
            refused()
        assert str(error.value).startswith(f"init=hf:{folder}: ")
        assert len(str(error.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("shape", "value", "message"), [((3, 3), 0.0, r"is \(3, 3\) in"), (None, torch.nan, "not finite")]
)
def test_weights_of_another_shape_or_that_are_no_numbers_are_named(
    shape: tuple[int, ...] | None, value: float, message: str, folder: Path
):
    tensors = load_file(path := folder / "model.safetensors")
    name = min(name for name in tensors if name.endswith("query.weight"))
    save_file({**tensors, name: torch.full(shape or tensors[name].shape, value)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match=message) as error:
        open_hub(f"hf:{folder}")
    assert name.removeprefix("bert.") in str(error.value)


def test_a_damaged_tokenizer_is_said_to_be(folder: Path):
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json is damaged"):
        open_hub(f"hf:{folder}")


def test_a_tokenizer_that_may_be_another_models_is_warned_of(folder: Path, capfd: pytest.CaptureFixture):
    open_hub(f"hf:{folder}")
    assert "warning" not in capfd.readouterr().err
    change(folder / "config.json", pad_token_id=7)
    open_hub(f"hf:{folder}")
    assert f"pad_token_id={TOKENIZER.pad_token_id} but 7 in config.json" in capfd.readouterr().err


def test_how_a_config_says_to_run_the_model_is_not_followed(folder: Path):
    complete = open_hub(f"hf:{folder}")
    odd = {"_attn_implementation": "flash_attention_2", "return_dict": False, "chunk_size_feed_forward": 7}
    change(folder / "config.json", **odd)
    again = open_hub(f"hf:{folder}")
    assert all(torch.equal(again.weights[name], value) for name, value in complete.weights.items())
    backbone = HuggingFace(again.spec, again.card["backbone"]["architecture"])
    assert backbone(torch.tensor([[1, 2, 3]])).tokens.shape == (1, 3, backbone.width)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "random:latest"}, "random: goes before hf:NAME_OR_DIR"),
        ({"init": "random:scratch"}, "random: goes before hf:NAME_OR_DIR"),
        ({"init": "scratch", "backbone": {"_target_": TARGET}}, "backbone=huggingface needs init=hf:NAME_OR_DIR"),
        (
            {"init": "hf:x", "pretrain": {"init": "scratch"}},
            r"set it for an arm, arm\.NAME\.init=hf:x, or for pretrain",
        ),
    ],
)
def test_an_init_that_says_nothing_is_refused(settings: dict, message: str):
    with pytest.raises(UserError, match=message):
        with_initial_backbone(OmegaConf.create({"backbone": {}, **settings}))


def test_another_models_tokenizer_is_refused(folder: Path):
    larger = TOKENIZER.__class__.from_pretrained(folder)
    larger.add_tokens([f"new{number}" for number in range(20)])
    larger.save_pretrained(folder)
    with pytest.raises(UserError, match=r"tokens, but the embedding of the model has 90 rows"):
        open_hub(f"hf:{folder}")


@pytest.mark.parametrize("name", ["/no/such/folder", "./no", "no such name", ""])
def test_a_folder_that_is_not_there_is_refused(name: str):
    with pytest.raises(UserError, match=rf"init=hf:{name}: there is no such folder"):
        with_initial_backbone(config_for(name))


def test_a_model_that_cannot_be_had_from_the_hub_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="init=hf:nobody/nothing: no such folder, and the model cannot be downloaded"):
        with_initial_backbone(config_for("nobody/nothing"))


def test_a_config_without_a_model_is_passed_on_without_importing_torch(folder: Path):
    code = f"""
import sys
from omegaconf import OmegaConf
from warmstart.config.resolve import with_initial_backbone
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
with_initial_backbone(OmegaConf.create({{"init": "scratch"}}))
try:
    with_initial_backbone(OmegaConf.create({{"init": "hf:{folder.parent}"}}))
except UserError:
    sys.exit(bool({{"torch", "transformers"}} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numbers_that_json_does_not_know_are_read_as_transformers_reads_them(folder: Path):
    odd = {"limits": [0.0, {"__float__": "Infinity"}], "low": {"__float__": "-Infinity"}, "none": {"__float__": "NaN"}}
    change(folder / "config.json", **odd)
    architecture = with_initial_backbone(config_for(folder)).backbone.architecture
    again = OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create({"a": architecture}))).a
    for found in (architecture, again):
        assert found.limits == [0.0, float("inf")]
        assert found.low == float("-inf")
        assert found.none != found.none
    saved = open_hub(f"hf:{folder}")
    check_backbone(
        saved, OmegaConf.create({"backbone": with_initial_backbone(config_for(folder)).backbone, "data": DATA})
    )
    (folder / "config.json").write_text((folder / "config.json").read_text().replace('{"__float__": "NaN"}', "NaN"))
    assert with_initial_backbone(config_for(folder)).backbone.architecture.none != 0


def test_the_tokenizers_files_are_kept_and_written_back(folder: Path):
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "spiece.model").write_bytes(bytes(range(256)))
    files = open_hub(f"hf:{folder}").preprocessor["files"]
    assert set(files) - {"tokenizer.json"} == {"tokenizer_config.json", "chat_template.jinja", "spiece.model"}
    assert files["tokenizer_config.json"] == (folder / "tokenizer_config.json").read_text()
    before = (folder / "tokenizer.json").read_text()
    rebuild(open_hub(f"hf:{folder}").preprocessor).export(folder)
    assert json.loads((folder / "tokenizer.json").read_text())["model"] == json.loads(before)["model"]
    assert (folder / "spiece.model").read_bytes() == bytes(range(256))
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
