"""Compare the speed with trl: instruction tuning with SFTTrainer, preferences with DPOTrainer, in tokens a second.

    python scripts/bench_language.py               # needs trl, accelerate and datasets
    python scripts/bench_language.py preferences   # one of both

Both finetune the same Llama of 30 million parameters on the same rows, with the same dtype, batch size and loss: on
conversations that are packed into blocks of the same length, or on pairs, with log-probabilities of the reference that
are computed before. Pairs are padded, which does not count as tokens; ours are batched by similar length, trl's at
random, which are the defaults. They alternate; the ratio is the median over the turns. Run it on an idle machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent))

from bench_text import Clock, compare, config_of
from omegaconf import DictConfig

from warmstart.config.resolve import with_initial_backbone
from warmstart.core import screen
from warmstart.data.sources.text.shakespeare import read_plays
from warmstart.stages import finetune
from warmstart.training.assemble import assemble
from warmstart.training.trainer import native_precision

STEPS, BATCH, CONTEXT, ROWS, PAIRS = 4, 8, 256, 2000, 80
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}{% if message.role == 'assistant' %}"
    "{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_rows(path: Path) -> list[dict[str, object]]:
    """Write conversations of one question and one answer, of 20 to 120 words of the plays; return them."""
    words, rng = read_plays().split(), np.random.default_rng(0)
    rows, start = [], 0
    for _ in range(ROWS):
        asked, answered = rng.integers(10, 60, 2)
        parts = words[start : start + asked], words[start + asked : start + asked + answered]
        start += asked + answered
        contents = [" ".join(part) for part in parts]
        messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), contents)]
        rows.append({"messages": messages})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def write_model(folder: Path) -> None:
    """Write a Llama of 30 million parameters with random weights, and its tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special, alphabet = ["<pad>", "<|im_start|>", "<|im_end|>"], pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(read_plays().split("\n\n"), trainer)
    roles = {"eos_token": "<|im_end|>", "pad_token": "<pad>"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **roles)
    fast.chat_template = CHATML
    fast.save_pretrained(folder)
    config = transformers.LlamaConfig(
        vocab_size=len(fast),
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=8,
        num_attention_heads=8,
        max_position_embeddings=CONTEXT,
        pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config)
    screen.say(f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} million parameters")
    model.save_pretrained(folder)


def write_pairs(path: Path) -> list[dict[str, Any]]:
    """Write pairs of answers to one question, of 10 to 60 words each; return them."""
    rows = write_rows(path)[: 2 * PAIRS]
    found = [
        {"prompt": one["messages"][:1], "chosen": one["messages"][1:], "rejected": other["messages"][1:]}
        for one, other in zip(rows[::2], rows[1::2])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return found


def settings_of(*words: str) -> DictConfig:
    """Return the config of a short finetuning without what is not measured."""
    config = config_of(
        *("stage=finetune", "visualization=[]", "logger=[]", "test=false", f"data.batch_size={BATCH}"),
        *(f"data.tokenizer.context={CONTEXT}", "trainer.max_epochs=-1", f"trainer.max_steps={STEPS}"),
        *("trainer.min_steps=null", f"trainer.val_check_interval={STEPS}", "trainer.check_val_every_n_epoch=null"),
        *("trainer.limit_val_batches=1", "scheduler=constant", "optimizer.lr=0.0001", *words),
    )
    return with_initial_backbone(config)


def trl_settings() -> dict[str, Any]:
    """Return the settings of transformers that are the same for both trainers of trl."""
    return {
        "max_steps": STEPS,
        "per_device_train_batch_size": BATCH,
        "max_length": CONTEXT,
        "bf16": native_precision("cpu") is not None,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataset_num_proc": None,
    }


def measured(config: DictConfig) -> float:
    """Return the tokens a second of a finetuning."""
    data, *_ = assemble(config)
    tokens = sum(
        batch.x.numel() if batch.mask is None else int((batch.mask > 0).sum())
        for batch, _ in zip(data.train_loader, range(STEPS))
    )
    with tempfile.TemporaryDirectory() as outputs:
        config.output_dir, clock = outputs, Clock()
        finetune.run(config, callbacks=[clock])
        return tokens / clock.watch.seconds


def loaded(folder: Path) -> dict[str, Any]:
    """Return the model and its tokenizer, as arguments of a trainer of trl."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    return {"model": model, "processing_class": transformers.AutoTokenizer.from_pretrained(folder)}


def timed(trainer: transformers.Trainer) -> float:
    """Return the tokens a second of a trainer of trl."""
    collate, batches = trainer.data_collator, []

    def counted(rows: list[Any]) -> Any:
        batches.append(batch := collate(rows))
        return batch

    trainer.data_collator = counted
    seconds = trainer.train().metrics["train_runtime"]
    return sum(tokens_of(batch) for batch in batches[:STEPS]) / seconds


def tokens_of(batch: dict[str, torch.Tensor]) -> int:
    """Return the number of tokens of a batch without padding; a batch without padding has no attention mask."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


def instruction(folder: Path) -> None:
    """Print the ratio of instruction tuning."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows, model = write_rows(folder / "chats.jsonl"), folder / "model"
    words = ("experiment=chat", f"data.root={folder / 'chats.jsonl'}", f"init=hf:{model}", "data.pack=true")
    config = settings_of(*words)

    def theirs() -> float:
        with tempfile.TemporaryDirectory() as outputs:
            settings = SFTConfig(outputs, packing=True, assistant_only_loss=True, **trl_settings())
            return timed(SFTTrainer(args=settings, train_dataset=Dataset.from_list(rows), **loaded(model)))

    compare("instruction tuning", lambda: measured(config), theirs, 1.3)


def preferences(folder: Path) -> None:
    """Print the ratio of direct preference optimization."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    rows, model = write_pairs(folder / "pairs.jsonl"), folder / "model"
    config = settings_of("experiment=preferences", f"data.root={folder / 'pairs.jsonl'}", f"init=hf:{model}")

    def theirs() -> float:
        with tempfile.TemporaryDirectory() as outputs:
            settings = DPOConfig(outputs, precompute_ref_log_probs=True, **trl_settings())
            return timed(DPOTrainer(args=settings, train_dataset=Dataset.from_list(rows), **loaded(model)))

    compare("preferences", lambda: measured(config), theirs, 1.3)


def main() -> None:
    """Measure and print the ratios of the kinds in the arguments, by default of all."""
    kinds = {"instruction": instruction, "preferences": preferences}
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        for kind in sys.argv[1:] or kinds:
            kinds[kind](folder)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main()
