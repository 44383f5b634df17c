"""Settings that save memory do not change what is learned."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers
from tests.huggingface.decoder import saved_decoder

from warmstart.huggingface.load import open_hub
from warmstart.huggingface.text import HuggingFace
from warmstart.objective.head import by_chunks
from warmstart.training.memory import peak_memory_mb, reset_peak_memory

LIMITS = ("trainer.max_epochs=-1", "trainer.min_steps=null", "trainer.max_steps=3", "trainer.val_check_interval=3")
SHORT = (*LIMITS, "trainer.check_val_every_n_epoch=null", "data.tokenizer.context=64", "visualization=[]")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder in bfloat16 and questions with answers."""
    folder = saved_decoder(tmp_path_factory.mktemp("bfloat16"))
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    rows = [
        {"prompt": f"Say {word}{end}", "completion": word} for word in ("big", "small", "thing") for end in ".!?;-+"
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def words(folder: Path, *more: str) -> tuple[str, ...]:
    own = ("stage=finetune", "experiment=chat", f"data.root={folder / 'rows.jsonl'}", f"init=hf:{folder}", *SHORT)
    return (*own, "backbone=huggingface", "strategy=lora", "trainer.precision=bf16-mixed", *more)


def test_weights_in_bfloat16_and_recomputed_activations_give_the_same_numbers(cli, folder: Path):
    found = []
    for more in ("backbone.dtype=float32", "strategy.rank=8", "backbone.checkpoint=true"):
        outcome = cli(*words(folder, more))
        assert outcome.status == 0, outcome.err
        found.append(outcome.record("finetune")["metrics"])
    assert found[0] == found[1] == found[2]
    assert cli("stage=evaluate", "experiment=chat").record("evaluate")["metrics"] == {
        name: value for name, value in found[2].items() if name.startswith("test/")
    }


def test_a_rounded_start_is_rounded_again_when_the_run_is_opened(cli, folder: Path, tmp_path: Path):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    model.to(torch.float32).load_state_dict({n: v + 1e-3 * torch.randn_like(v) for n, v in model.state_dict().items()})
    model.save_pretrained(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "model" / name).write_text((folder / name).read_text())
    own = words(folder, f"init=hf:{tmp_path / 'model'}", "backbone.dtype=bfloat16", "strategy.dora=true")
    trained = cli(*own).record("finetune")["metrics"]
    evaluated = cli("stage=evaluate", "experiment=chat").record("evaluate")["metrics"]
    assert evaluated == {name: value for name, value in trained.items() if name.startswith("test/")}


def test_a_dtype_with_a_hugging_face_start_chooses_its_backbone(cli, folder: Path):
    own = [word for word in words(folder, "backbone.dtype=bfloat16") if word != "backbone=huggingface"]
    found = cli(*own)
    assert found.status == 0, found.err
    assert "dtype: bfloat16" in (found.run("finetune") / "config.yaml").read_text()
    for more, message in (
        (("strategy=full",), "backbone.dtype=bfloat16: weights that are trained are float32: use strategy=lora"),
        (("init=scratch",), "backbone.dtype is for text models of Hugging Face: add backbone=huggingface and init=hf:"),
    ):
        kept = [word for word in own if word.partition("=")[0] != more[0].partition("=")[0]]
        refused = cli(*kept, *more)
        assert refused.status == 2
        assert message in " ".join(refused.error.split())


REFUSED = {
    "trained": (("strategy=full", "backbone.dtype=bfloat16"), "backbone.dtype=bfloat16: weights that are trained"),
    "precision": (("trainer.precision=null", "backbone.dtype=bfloat16"), "set it to bf16-mixed"),
    "quantized": (("strategy=full", "backbone.quantize=int8"), "backbone.quantize=int8: trained weights are not"),
    "library": (("backbone.quantize=int8",), "backbone.quantize=int8 needs torchao"),
    "kind": (("backbone.dtype=float16",), "backbone.dtype=float16: must be auto, bfloat16 or float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_impossible_dtypes_are_refused(cli, folder: Path, name: str):
    if name == "library" and importlib.util.find_spec("torchao"):
        pytest.skip("torchao is installed")
    more, message = REFUSED[name]
    outcome = cli(*words(folder, *more))
    assert outcome.status == 2
    assert message in outcome.error
    assert len(outcome.error.splitlines()) <= 2


def test_loading_takes_little_more_memory_than_the_weights(folder: Path, tmp_path: Path):
    config = transformers.LlamaConfig.from_pretrained(folder)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 512, 1536, 12
    config.num_attention_heads = config.num_key_value_heads = 8
    config.head_dim, config.architectures = 64, ["LlamaForCausalLM"]
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.fill_(0.01)
    model.save_pretrained(tmp_path)
    del model
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    reset_peak_memory()
    before = peak_memory_mb()
    saved = open_hub(f"hf:{tmp_path}", dtype="float32")
    backbone = HuggingFace(saved.spec, saved.card["backbone"]["architecture"], weights=saved.weights)
    size = sum(value.nbytes for value in backbone.parameters()) / 1e6
    assert size > 150
    assert peak_memory_mb() - before < 1.2 * size


def test_logits_of_all_chunks_are_not_kept_for_the_backward_pass():
    head, saved = torch.nn.Linear(4, 1000), []
    x = torch.randn(64, 4, requires_grad=True)

    def loss(features: torch.Tensor) -> torch.Tensor:
        return head(features).float().logsumexp(-1).sum()

    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: saved.append(value.numel()) or value, lambda value: value
    ):
        total = torch.stack(by_chunks(loss, 8, x)).sum()
    assert max(saved) < 8 * 1000
    (gradient,) = torch.autograd.grad(total, x)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(x), x)[0])
