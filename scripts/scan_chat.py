"""Tune, query and export all common types of causal language models. Prints a table.

    python scripts/scan_chat.py          # all types
    python scripts/scan_chat.py llama    # some types

Each model is a tiny random model of transformers with a new tokenizer and a chat template. It is finetuned for a step
on packed conversations, with all weights and with adapters. The answers of `stage=generate` are compared with those of
transformers from the exported folder, in addition to the checks of `stage=export`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from hydra import compose, initialize_config_dir
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent))

from scan_exports import settings

from warmstart import main
from warmstart.config.expand import expand
from warmstart.core.errors import UserError

KINDS = ("llama", "qwen2", "qwen3", "mistral", "gemma", "gemma2", "phi", "phi3", "gpt2", "opt", "smollm3")
CONTEXT = 64
PADDED = ("opt",)  # cannot separate packed conversations
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QUIET = ("visualization=[]", "logger=[]", "trainer.max_epochs=-1", "trainer.max_steps=1", "trainer.min_steps=null")


def make_model(name: str, folder: Path) -> None:
    """Write a tiny random model of a type, with a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<|im_end|>", "<|im_start|>", "<pad>", "<|endoftext|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["Say cat, dog, bird or fish, user and assistant."] * 3, trainer)
    roles = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **roles)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    sizes = {**settings("decoder", name), "vocab_size": len(fast), "pad_token_id": 2, "bos_token_id": None}
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[name](**{**sizes, "eos_token_id": 0})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def command(*words: str) -> str:
    """Run a command line in this process; return what it prints.

    Raises:
        RuntimeError: its exit status is not 0.
    """
    out = io.StringIO()
    with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)), contextlib.redirect_stdout(out):
        is_typed = any(word.startswith("experiment=") for word in words)
        status = main.run(compose("train", overrides=expand(list(words))), is_typed)
    if status:
        raise RuntimeError(f"exit status {status}")
    return out.getvalue()


def newest(folder: Path, stage: str) -> Path:
    """Return the newest run folder of a stage."""
    return max((folder / stage).glob("*/*"), key=lambda path: path.stat().st_mtime_ns)


def scan(name: str, folder: Path) -> tuple[bool, float, float]:
    """Return whether the answers are equal, and the differences of the exported logits: merged model, adapter."""
    make_model(name, folder / "model")
    rows = [{"prompt": f"Say {word}.", "completion": word} for word in ("cat", "dog", "bird", "fish") * 5]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outputs = folder / "outputs"
    own = (
        "experiment=chat",
        f"data.root={folder / 'rows.jsonl'}",
        f"data.tokenizer.context={CONTEXT}",
        f"data.pack={str(name not in PADDED).lower()}",
    )
    own = (*own, f"init=hf:{folder / 'model'}", "trainer.precision=null", f"output_dir={outputs}", *QUIET)
    command("stage=finetune", *own, "data.batch_size=2")
    run = newest(outputs, "finetune")
    command("stage=generate", f"run={run}", "prompt=Say cat.", "temperature=0", "length=8", f"output_dir={outputs}")
    (record,) = map(json.loads, (newest(outputs, "generate") / "generated.jsonl").read_text().splitlines())
    command("stage=export", f"run={run}", "format=hf", f"folder={folder / 'hf'}", f"output_dir={outputs}")
    answer = transformers.pipeline("text-generation", model=str(folder / "hf"))
    found = answer([{"role": "user", "content": "Say cat."}], max_new_tokens=8, do_sample=False)
    is_equal = found[0]["generated_text"][-1]["content"].strip() == record["completion"].strip()
    differences = [json.loads((newest(outputs, "export") / "run.json").read_text())["export"]["difference"]]
    command("stage=finetune", *own, "data.batch_size=2", "strategy=lora")
    lora = newest(outputs, "finetune")
    command("stage=export", f"run={lora}", "format=peft", f"folder={folder / 'peft'}", f"output_dir={outputs}")
    differences.append(json.loads((newest(outputs, "export") / "run.json").read_text())["export"]["difference"])
    return is_equal, *differences


def run() -> None:
    """Scan the types of the command line, or all."""
    transformers.logging.set_verbosity_error()
    for name in sys.argv[1:] or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["WARMSTART_CACHE"] = f"{folder}/cache"
            try:
                is_equal, merged, adapter = scan(name, Path(folder))
                line = f"answers {'equal' if is_equal else 'DIFFER'}, logits {merged:.1e} merged, {adapter:.1e} adapter"
            except (UserError, RuntimeError) as error:
                line = f"REFUSED: {error}"
        sys.stdout.write(f"{name:10} {line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    run()
