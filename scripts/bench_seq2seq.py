"""Compare the speed of sequence-to-sequence training with transformers' Seq2SeqTrainer: tokens a second, as a ratio.

    python scripts/bench_seq2seq.py   # needs accelerate

Both finetune the same T5 of 8 million parameters on the same pairs of texts, with the same dtype, batch size and loss;
batches are padded to their longest rows. They alternate; the ratio is the median over the turns. Run it on an idle
machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

sys.path.insert(0, str(Path(__file__).parent))

from bench_text import Clock, compare, config_of

from warmstart.config.resolve import with_initial_backbone
from warmstart.core import screen
from warmstart.data.sources.text.shakespeare import read_plays
from warmstart.objective.seq2seq import NONE
from warmstart.stages import finetune
from warmstart.training.assemble import assemble
from warmstart.training.trainer import native_precision

STEPS, BATCH, CONTEXT, ROWS = 30, 16, 128, 2000
SPECIAL = ["<pad>", "</s>", "<unk>"]


def write_rows(path: Path) -> pd.DataFrame:
    """Write pairs of 10 to 80 words of the plays and the 3 to 20 words that follow; return them."""
    words, rng = read_plays().split(), np.random.default_rng(0)
    rows, start = [], 0
    for _ in range(ROWS):
        given, asked = int(rng.integers(10, 80)), int(rng.integers(3, 20))
        middle, end = start + given, start + given + asked
        rows.append((" ".join(words[start:middle]), " ".join(words[middle:end])))
        start = end
    table = pd.DataFrame(rows, columns=["text", "target"])
    table.to_csv(path, index=False)
    return table


def write_model(folder: Path) -> None:
    """Write a T5 of 8 million parameters with random weights, and its tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=4096, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(read_plays().split("\n\n"), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    roles = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT, **roles)
    fast.save_pretrained(folder)
    sizes = {"d_model": 256, "d_kv": 32, "d_ff": 1024, "num_layers": 4, "num_heads": 8}
    ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=len(fast), **sizes, **ids))
    screen.say(f"{sum(value.numel() for value in model.parameters()) / 1e6:.1f} million parameters")
    model.save_pretrained(folder)


def main() -> None:
    """Measure and print the ratio."""
    from datasets import Dataset

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = write_rows(folder / "pairs.csv")
        write_model(folder / "model")
        config = config_of(
            *("stage=finetune", "experiment=seq2seq", f"data.root={folder / 'pairs.csv'}", "visualization=[]"),
            *(f"init=hf:{folder / 'model'}", f"data.batch_size={BATCH}", "logger=[]", "test=false"),
            *(f"data.tokenizer.context={CONTEXT}", "trainer.max_epochs=-1", f"trainer.max_steps={STEPS}"),
            *("trainer.min_steps=null", f"trainer.val_check_interval={STEPS}", "trainer.check_val_every_n_epoch=null"),
            *("trainer.limit_val_batches=1", "scheduler=constant", "optimizer.lr=0.0001", "objective.metric=loss"),
        )
        config = with_initial_backbone(config)
        data, *_ = assemble(config)
        loader = data.train_loader
        own = [
            (batch.x.numel() if batch.mask is None else int(batch.mask.sum())) + int((batch.y != NONE).sum())
            for batch, _ in zip(loader, range(STEPS))
        ]
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
        encoded = tokenizer(list(table.text), truncation=True, return_token_type_ids=False)
        targets = tokenizer(text_target=list(table.target), truncation=True)["input_ids"]
        rows = [{"input_ids": x, "labels": y} for x, y in zip(encoded["input_ids"], targets)]
        mean = float(np.mean([len(row["input_ids"]) + len(row["labels"]) for row in rows]))

        def ours() -> float:
            with tempfile.TemporaryDirectory() as outputs:
                config.output_dir, clock = outputs, Clock()
                finetune.run(config, callbacks=[clock])
                return sum(own) / clock.watch.seconds

        def theirs() -> float:
            with tempfile.TemporaryDirectory() as outputs:
                model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder / "model", dtype="float32")
                settings = transformers.Seq2SeqTrainingArguments(
                    outputs,
                    max_steps=STEPS,
                    per_device_train_batch_size=BATCH,
                    bf16=native_precision("cpu") is not None,
                    use_cpu=True,
                    learning_rate=1e-4,
                    max_grad_norm=1.0,
                    lr_scheduler_type="constant",
                    report_to=[],
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                )
                collator = transformers.DataCollatorForSeq2Seq(tokenizer, model=model)
                trainer = transformers.Seq2SeqTrainer(
                    model, settings, train_dataset=Dataset.from_list(rows), data_collator=collator
                )
                return STEPS * BATCH * mean / trainer.train().metrics["train_runtime"]

        compare("sequence to sequence", ours, theirs, 1.3)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main()
