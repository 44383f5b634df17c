"""Finetune, predict with and export common types of text-to-text models. Prints a table.

    python scripts/scan_seq2seq.py          # all types
    python scripts/scan_seq2seq.py t5 bart  # some types

Each model is a tiny random model of transformers with a new tokenizer. It is finetuned for a step, with all weights and
with adapters. The texts of `stage=predict` are compared with those that transformers generates from the export, in
addition to the comparison of logits in `stage=export`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

sys.path.insert(0, str(Path(__file__).parent))

from scan_chat import QUIET, command, newest

from warmstart.core.errors import UserError

KINDS = (
    "t5",
    "mt5",
    "umt5",
    "longt5",
    "bart",
    "mbart",
    "pegasus",
    "marian",
    "blenderbot",
    "blenderbot-small",
    "m2m_100",
)
SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
SIZES = {
    **{"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0, "dropout": 0.0},
    **{f"{half}_layers": 2 for half in ("encoder", "decoder")},
    **{f"{half}_attention_heads": 4 for half in ("encoder", "decoder")},
    **{f"{half}_ffn_dim": 64 for half in ("encoder", "decoder")},
    **{"max_position_embeddings": 64, "activation_dropout": 0.0, "attention_dropout": 0.0},
}
LENGTH = 8


def make_model(name: str, folder: Path) -> None:
    """Write a tiny random model of a type, with a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Say cat, dog, bird or fish."] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    roles = dict(zip(("pad_token", "eos_token", "unk_token", "bos_token", "mask_token"), SPECIAL))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **roles)
    fast.save_pretrained(folder)
    known = transformers.CONFIG_MAPPING[name]()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3, "decoder_start_token_id": 1}
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[name](vocab_size=len(fast), **sizes, **ids)
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)


def scan(name: str, folder: Path) -> tuple[bool, float, float]:
    """Return whether the texts are equal, and the differences of the exported logits: all weights, adapters."""
    make_model(name, folder / "model")
    words = ("cat", "dog", "bird", "fish")
    table = pd.DataFrame({"text": [f"Say {word} {row}." for row in range(5) for word in words], "target": words * 5})
    table.to_csv(folder / "rows.csv", index=False)
    outputs, differences = folder / "outputs", []
    own = ("experiment=seq2seq", f"data.root={folder / 'rows.csv'}", f"init=hf:{folder / 'model'}")
    own = (*own, "trainer.precision=null", "objective.metric=loss", f"objective.length={LENGTH}", *QUIET)
    for strategy in ("full", "lora"):
        command("stage=finetune", *own, f"strategy={strategy}", "data.batch_size=4", f"output_dir={outputs}")
        run = newest(outputs, "finetune")
        command("stage=export", f"run={run}", f"folder={folder / strategy}", f"output_dir={outputs}")
        differences.append(json.loads((newest(outputs, "export") / "run.json").read_text())["export"]["difference"])
    command("stage=predict", f"run={run}", f"input={folder / 'rows.csv'}", f"output_dir={outputs}")
    lines = (newest(outputs, "predict") / "predictions.jsonl").read_text().splitlines()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "lora")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "lora")
    inputs = tokenizer(list(table.text), padding=True, return_tensors="pt", return_token_type_ids=False)
    found = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=False)
    texts = [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)]
    return texts == [json.loads(line)["text"] for line in lines], *differences


def run() -> None:
    """Scan the types of the command line, or all."""
    transformers.logging.set_verbosity_error()
    for name in sys.argv[1:] or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["WARMSTART_CACHE"] = f"{folder}/cache"
            try:
                is_equal, full, adapter = scan(name, Path(folder))
                line = f"texts {'equal' if is_equal else 'DIFFER'}, logits {full:.1e} full, {adapter:.1e} adapter"
            except (UserError, RuntimeError) as error:
                line = f"REFUSED: {error}"
        sys.stdout.write(f"{name:17} {line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run()
