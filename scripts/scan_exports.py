"""Load, finetune, export and compare all types of Hugging Face models. Writes docs/results/exports.md.

    python scripts/scan_exports.py            # all types, written to docs/results/exports.md
    python scripts/scan_exports.py bert gpt2  # some types, printed; --update also writes them to the page

Each model is a tiny random model of transformers with a new tokenizer (or processor). The predictions of
`stage=predict` are compared with those of transformers from the exported folder, on texts with special tokens, in one
padded batch and one by one, in addition to the check of `stage=export`.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import json
import math
import os
import sys
import tempfile
import traceback
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import transformers
from hydra import compose, initialize_config_dir
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from warmstart import main
from warmstart.core.errors import UserError

ALLOWED = 1e-4
DOCS = Path(__file__).parents[1] / "docs" / "results" / "exports.md"
WORDS = {"good": ["fine", "lovely", "bright", "warm"], "bad": ["dull", "grim", "awful", "cold"]}
QUIET = ("visualization=[]", "test=false", "trainer.max_steps=1", "trainer.val_check_interval=1", "data.batch_size=4")
ENCODERS = (
    *("albert", "bert", "big_bird", "camembert", "convbert", "data2vec-text", "deberta", "deberta-v2", "distilbert"),
    *("electra", "ernie", "esm", "eurobert", "flaubert", "fnet", "funnel", "ibert", "layoutlm", "longformer", "luke"),
    *("megatron-bert", "mobilebert", "modernbert", "mpnet", "mra", "nomic_bert", "nystromformer", "reformer"),
    *("rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "squeezebert", "xlm", "xlm-roberta"),
    *("xlm-roberta-xl", "xmod", "yoso", "canine", "bart", "t5"),
)
DECODERS = (
    *("arcee", "biogpt", "bloom", "codegen", "cohere", "ctrl", "deepseek_v2", "deepseek_v3", "diffllama", "doge"),
    *("ernie4_5", "exaone4", "falcon", "falcon_mamba", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "helium", "jamba", "jetmoe", "llama"),
    *("mamba", "mamba2", "minimax", "ministral", "mistral", "mixtral", "modernbert-decoder", "mpt", "nemotron"),
    *("olmo", "olmo2", "olmo3", "openai-gpt", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe"),
    *("qwen3", "qwen3_moe", "qwen3_next", "recurrent_gemma", "rwkv", "seed_oss", "smollm3", "stablelm"),
    *("starcoder2", "xglm", "xlnet", "xlstm", "zamba2"),
)
IMAGES = (
    *("beit", "bit", "clip", "convnext", "convnextv2", "cvt", "data2vec-vision", "deit", "dinov2", "efficientnet"),
    *("dinov2_with_registers", "focalnet", "hiera", "ijepa", "imagegpt", "mobilenet_v1", "mobilenet_v2"),
    *("mobilevit", "poolformer", "pvt", "pvt_v2", "regnet", "resnet", "segformer", "siglip", "swiftformer", "swin"),
    *("swinv2", "vit", "vit_msn"),
)
SPEECH = (
    *("data2vec-audio", "hubert", "sew", "sew-d", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert"),
    *("wav2vec2-conformer", "wavlm", "whisper"),
)
KINDS = {"encoder": ENCODERS, "decoder": DECODERS, "images": IMAGES, "speech": SPEECH}
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "attention_heads", "num_local_experts", "num_experts"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "dff", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("d_inner", "n_inner", "d_ff"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "max_sequence_length"), 64),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "moe_topk", "n_group", "topk_group"), 2),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "d_head", "d_kv"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_routed_experts", "mamba_d_state", "state_size"), 4),
    **{"n_shared_experts": 1, "first_k_dense_replace": 1, "rotary_dim": 4, "vocab_size": 200, "n_words": 200},
    **{"sliding_window": 8, "attention_window": [4, 4], "image_size": 32, "patch_size": 8, "num_channels": 3},
    **{"n_groups": 1, "conv_kernel": None, "expand": 2, "mamba_dt_rank": 4, "mamba_expand": 2, "mamba_d_conv": 2},
}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
SOUND = {
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [8, 8, 5],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 30,
    "feat_extract_norm": "layer",
}
FOURS = {"num_attention_heads": [1] * 4, "hidden_sizes": [8] * 4, "depths": [1] * 4, "patch_size": 4}
ABSENT = object()  # a setting that is left to the configuration's default
OWN: dict[str, dict[str, Any]] = {
    "convnext": {**STAGES, "patch_size": 4},
    "convnextv2": {**STAGES, "patch_size": 4},
    "cvt": {key: ABSENT for key in ("embed_dim", "num_heads", "patch_size")},
    "hiera": {"image_size": [32, 32], "num_heads": ABSENT, "embed_dim": 8, "patch_size": ABSENT},
    "pvt": FOURS,
    "pvt_v2": {**FOURS, "image_size": 32},
    "segformer": FOURS,
    "swin": {
        "num_attention_heads": ABSENT,
        "num_heads": [1, 2],
        "embed_dim": 8,
        "depths": [1, 1],
        "window_size": 2,
        "patch_size": 4,
    },
    "swinv2": {
        "num_attention_heads": ABSENT,
        "num_heads": [1, 2],
        "embed_dim": 8,
        "depths": [1, 1],
        "window_size": 2,
        "patch_size": 4,
    },
    "whisper": {"vocab_size": ABSENT},
    "xlstm": {"v_head_dim": ABSENT, "qk_head_dim": ABSENT, "head_dim": ABSENT},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "layer_types": ABSENT},
    "deepseek_v2": {"num_key_value_heads": 4, "head_dim": ABSENT, "n_group": 1, "topk_group": 1},
    "deepseek_v3": {"num_key_value_heads": 4, "head_dim": ABSENT, "n_group": 1, "topk_group": 1},
    "efficientnet": {"hidden_dim": ABSENT},
    "resnet": {**STAGES, "embedding_size": 8, "layer_type": "basic"},
    "regnet": {**STAGES, "embedding_size": 8, "layer_type": "x", "groups_width": 4},
    "falcon": {"head_dim": ABSENT},
    "funnel": {"num_hidden_layers": ABSENT, "block_sizes": [1, 1]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "mamba2": {"num_heads": 8},
    "modernbert-decoder": {"pad_token_id": 0},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "xlnet": {"max_position_embeddings": ABSENT},
    "mobilebert": {"normalization_type": "layer_norm"},
    "reformer": {"axial_pos_embds": False, "attn_layers": ["local", "local"], "local_attn_chunk_length": 8},
    "xmod": {"default_language": "en_XX"},
}


HINTS = (  # of refusals, which are followed once
    ("trainer.precision=null",),
    ("backbone=huggingface_images", "backbone.pooling=mean"),
    ("backbone=huggingface_images", "backbone.pooling=pooler"),
)


@dataclass
class Found:
    """What became of one model type."""

    kind: str
    name: str
    result: str  # equal, refused or defect
    difference: float = math.nan
    reason: str = ""


def settings(kind: str, name: str) -> dict[str, Any]:
    """Sizes of a tiny model that its configuration has, by name."""
    known = transformers.CONFIG_MAPPING[name]()
    sizes = {**SIZES, **SOUND} if kind == "speech" else SIZES
    found = {key: value for key, value in sizes.items() if value is not None and hasattr(known, key)}
    if kind == "encoder":
        found |= {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    elif kind == "decoder":
        found |= {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    return {key: value for key, value in {**found, **OWN.get(name, {})}.items() if value is not ABSENT}


def text_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A word-piece tokenizer with BERT's special tokens, or GPT-2's byte pairs with an end token alone."""
    texts = [text for row in rows() for text in row[:1]] * 5
    if kind == "encoder":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=190, special_tokens=special, show_progress=False)
        named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<|endoftext|>"], show_progress=False)
        named = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "encoder":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **named)


def rows() -> list[tuple[str, str]]:
    """Texts and labels."""
    generator = np.random.default_rng(0)
    found = []
    for number in range(24):
        label = ("good", "bad")[number % 2]
        words = [*generator.choice(WORDS[label], 2), *generator.choice(["the", "film", "was", "a"], 1 + number % 4)]
        found.append((" ".join(generator.permutation(words)), label))
    return found


def make_model(kind: str, name: str, folder: Path) -> None:
    """Save a tiny random model, with weights large enough that its answers differ, and what it needs beside it."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[name](**settings(kind, name))
    config.architectures = config.architectures or []
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and kind != "images":
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    if kind in ("encoder", "decoder"):
        text_tokenizer(kind).save_pretrained(folder)
        takes = inspect.signature(model.forward).parameters
        if kind == "encoder" and "token_type_ids" in takes and getattr(config, "type_vocab_size", 0) > 1:
            path = folder / "tokenizer_config.json"
            names = ["input_ids", "token_type_ids", "attention_mask"]
            path.write_text(json.dumps({**json.loads(path.read_text()), "model_input_names": names}))
    elif kind == "images":
        preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255, "size": 32}
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    else:
        extractor = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": 16_000,
            "do_normalize": True,
        }
        (folder / "preprocessor_config.json").write_text(json.dumps({**extractor, "return_attention_mask": True}))


def make_data(kind: str, folder: Path) -> tuple[str, ...]:
    """Write labelled rows, and return the words that name them."""
    folder.mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    if kind in ("encoder", "decoder"):
        lines = "".join(f"{text}\t{label}\n" for text, label in rows())
        (folder / "rows.tsv").write_text(f"text\tlabel\n{lines}")
        return "experiment=text", f"data.root={folder / 'rows.tsv'}", "data.text=text", "data.target=label"
    for number in range(16):
        label = ("good", "bad")[number % 2]
        (folder / label).mkdir(exist_ok=True)
        if kind == "images":
            pixels = generator.integers(0, 128 + 127 * (number % 2), (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
        else:
            sound = (generator.normal(0, 3000 + 2000 * (number % 2), 4000 + 100 * number)).astype(np.int16)
            with wave.open(str(folder / label / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 16_000, len(sound), "NONE", ""))
                file.writeframes(sound.tobytes())
    data = "experiment=images" if kind == "images" else "experiment=speech"
    return data, f"data={'image' if kind == 'images' else 'audio'}_folder", f"data.root={folder}"


def command(*words: str) -> None:
    """A command line in this process.

    Raises:
        UserError: it was refused.
        RuntimeError: it failed.
    """
    errors = io.StringIO()
    with (
        initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
    ):
        status = main.run(compose("train", overrides=list(words)))
    lines = errors.getvalue().strip().splitlines()
    if status == main.USER_ERROR:
        refusals = [line for line in lines if line.startswith("error:")]
        raise UserError(" ".join(refusals).removeprefix("error:").strip())
    if status:
        raise RuntimeError(errors.getvalue())


def newest(folder: Path, stage: str) -> Path:
    """The run of a stage."""
    return sorted(path.parent for path in (folder / stage).glob("*/*/run.json"))[-1]


def asked(outputs: Path, words: tuple[str, ...], inputs: Path) -> list[dict[str, Any]]:
    """The answers of the run to a file or folder."""
    command("stage=predict", *words, f"input={inputs}")
    return [json.loads(line) for line in (newest(outputs, "predict") / "predictions.jsonl").read_text().splitlines()]


def measured(kind: str, back: Path, answers: list[dict[str, Any]], rows: list[Any]) -> float:
    """The largest difference of probabilities, ours from those of transformers alone, for one padded batch."""
    settings: dict[str, Any] = {"return_tensors": "pt"}
    if kind in ("encoder", "decoder"):
        auto, reader, settings = "SequenceClassification", "AutoTokenizer", {**settings, "padding": True}
    elif kind == "images":
        auto, reader = "ImageClassification", "AutoImageProcessor"
    else:
        auto, reader = "AudioClassification", "AutoFeatureExtractor"
        settings |= {"padding": True, "sampling_rate": 16_000}
    model = getattr(transformers, f"AutoModelFor{auto}").from_pretrained(back).eval()
    inputs = getattr(transformers, reader).from_pretrained(back)(rows, **settings)
    with torch.no_grad():
        found = model(**inputs).logits.softmax(-1)
    numbers = torch.tensor([model.config.label2id[answer["label"]] for answer in answers])
    ours = torch.tensor([answer["probability"] for answer in answers])
    return (found[range(len(ours)), numbers] - ours).abs().max().item()


def contents(kind: str, path: Path) -> Any:
    """An image or a sound as transformers takes it."""
    if kind == "images":
        return Image.open(path)
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def compared(kind: str, folder: Path, words: tuple[str, ...]) -> float:
    """The largest difference on a batch, and on two of its rows alone."""
    outputs, back = folder / "outputs", folder / "back"
    if kind in ("encoder", "decoder"):
        special = ("[SEP]", "[PAD]", "[UNK]") if kind == "encoder" else ("<|endoftext|>",)
        texts = [text for text, _ in rows()[:6]]
        texts = [f"so {special[0]} fine", "fine", *texts, *(f"happy {token}" for token in special)]
        (inputs := folder / "lines.txt").write_text("".join(f"{text}\n" for text in texts))
        (ones := [folder / "one.txt", folder / "two.txt"])[0].write_text(f"{texts[0]}\n")
        ones[1].write_text(f"{texts[1]}\n")
        answers = asked(outputs, words, inputs)
    else:
        answers = asked(outputs, words, folder / "data" / "good")
        texts = [contents(kind, answer["file"]) for answer in answers]
        ones = [Path(answer["file"]) for answer in answers[:2]]
    found = [measured(kind, back, answers, texts)]
    for number, one in enumerate(ones):
        found.append(measured(kind, back, asked(outputs, words, one), [texts[number]]))
    return max(found)


def scan(kind: str, name: str, folder: Path, more: tuple[str, ...] = ()) -> Found:
    """Load, finetune one step, export and compare one model type; `more` are words for the finetuning."""
    outputs, back = folder / "outputs", folder / "back"
    if not (folder / "model").exists():
        try:
            make_model(kind, name, folder / "model")
        except Exception as error:  # by transformers, with these sizes
            return Found(kind, name, "not built", reason=f"{type(error).__name__}: {str(error)[:200]}")
    words = make_data(kind, folder / "data")
    own = (f"output_dir={outputs}", *words[:1])
    limit = ("data.tokenizer.context=32",) if kind in ("encoder", "decoder") else ("trainer.precision=null",)
    tune = (f"init=hf:{folder / 'model'}", *own, *words[1:], *QUIET, *limit, "objective=classification", *more)
    try:
        command("stage=finetune", *tune)
        command("stage=export", *own, f"folder={back}")
        record = json.loads((newest(outputs, "export") / "run.json").read_text())["export"]
        difference = max(record["difference"], compared(kind, folder, own))
    except UserError as error:
        reason = str(error).replace(str(folder), "")
        hint = next((words for words in HINTS if " ".join(words) in reason), None)
        if not more and hint:
            return scan(kind, name, folder, hint)
        is_clean = not back.exists() and len(reason.splitlines()) == 1
        return Found(kind, name, "refused" if is_clean else "defect", reason=reason)
    except Exception:
        return Found(kind, name, "defect", reason=traceback.format_exc()[-1500:])
    return Found(kind, name, "equal" if difference <= ALLOWED else "defect", difference)


def written(results: list[Found]) -> str:
    """Return the page: counts, and a row for each model type."""
    count = {name: sum(found.result == name for found in results) for name in ("equal", "refused", "defect")}
    lines = [
        "# Exports to transformers, by model type",
        "",
        "Written by `python scripts/scan_exports.py`. Each row is a tiny random model of that type: loaded with",
        "`init=hf:`, finetuned for one step, exported, and its predictions compared with those of the run, in one",
        "padded batch and one by one, on rows of the data and on inputs with special tokens.",
        f"The difference is the maximum, relative to the largest output if that is above 1 (transformers "
        f"{transformers.__version__}).",
        "",
        f"**{len(results)} types: {count['equal']} equal to {ALLOWED:g}, {count['refused']} refused in one line, "
        f"{count['defect']} defects.**",
        "",
        "| kind | model type | result | difference or reason |",
        "| --- | --- | --- | --- |",
    ]
    for found in results:
        what = f"{found.difference:.1e}" if found.result == "equal" else found.reason.replace("|", "\\|")
        lines.append(f"| {found.kind} | {found.name} | {found.result} | {what} |")
    return "\n".join(lines) + "\n"


def listed() -> list[Found]:
    """The results on the page."""
    found = []
    for line in DOCS.read_text().splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in line.split(" | ")]
        if line.startswith("| ") and cells[0].removeprefix("| ") in KINDS:
            kind, name, result, what = cells[0].removeprefix("| "), *cells[1:3], cells[3].removesuffix(" |")
            is_equal = result == "equal"
            found.append(Found(kind, name, result, float(what) if is_equal else math.nan, "" if is_equal else what))
    return found


def run() -> None:
    """Scan the types on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="model types; all where none is given")
    parser.add_argument("--update", action="store_true", help="put these types into the page, beside what is there")
    given = parser.parse_args()
    results = []
    for kind, names in KINDS.items():
        for name in names:
            if given.names and name not in given.names:
                continue
            with tempfile.TemporaryDirectory() as folder:
                os.environ["WARMSTART_CACHE"] = f"{folder}/cache"
                os.mkdir(f"{folder}/work")
                found = scan(kind, name, Path(folder) / "work")
            results.append(found)
            print(f"{kind:8} {name:24} {found.result:9} {found.difference:.1e} {found.reason}", flush=True)
    is_clean = all(found.result in ("equal", "refused") for found in results)
    if given.update:
        by_name = {(found.kind, found.name): found for found in [*listed(), *results]}
        results = [by_name[kind, name] for kind, names in KINDS.items() for name in names if (kind, name) in by_name]
    if given.update or not given.names:
        DOCS.write_text(written(results))
    sys.exit(not is_clean)


if __name__ == "__main__":
    run()
