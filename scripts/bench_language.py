"""Compare the speed of instruction tuning with trl's SFTTrainer: tokens a second, as a ratio.

    python scripts/bench_language.py   # needs trl and accelerate

Both finetune the same Llama of 30 million parameters on the same conversations, packed into blocks of the same length,
with the same dtype, batch size and loss. They alternate; the ratio is the median over the turns. Run it on an idle
machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).parent))

from bench_text import Clock, compare, config_of

from warmstart.config.resolve import with_initial_backbone
from warmstart.core import screen
from warmstart.data.sources.text.shakespeare import read_plays
from warmstart.stages import finetune
from warmstart.training.assemble import assemble
from warmstart.training.trainer import native_precision

STEPS, BATCH, CONTEXT, ROWS = 4, 8, 256, 2000
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


def main() -> None:
    """Measure and print the ratio."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder / "chats.jsonl")
        write_model(folder / "model")
        config = config_of(
            *("stage=finetune", "experiment=chat", f"data.root={folder / 'chats.jsonl'}", "visualization=[]"),
            *(f"init=hf:{folder / 'model'}", "data.pack=true", f"data.batch_size={BATCH}", "logger=[]", "test=false"),
            *(f"data.tokenizer.context={CONTEXT}", "trainer.max_epochs=-1", f"trainer.max_steps={STEPS}"),
            *("trainer.min_steps=null", f"trainer.val_check_interval={STEPS}", "trainer.check_val_every_n_epoch=null"),
            *("trainer.limit_val_batches=1", "scheduler=constant", "optimizer.lr=0.0001"),
        )
        config = with_initial_backbone(config)
        data, *_ = assemble(config)
        loader = data.train_loader
        own = [int((batch.mask > 0).sum()) for batch, _ in zip(loader, range(STEPS))]
        loader.load_state_dict({"epoch": -1, "position": 0})

        def ours() -> float:
            with tempfile.TemporaryDirectory() as outputs:
                config.output_dir, clock = outputs, Clock()
                finetune.run(config, callbacks=[clock])
                return sum(own) / clock.watch.seconds

        def theirs() -> float:
            with tempfile.TemporaryDirectory() as outputs:
                settings = SFTConfig(
                    outputs,
                    max_steps=STEPS,
                    per_device_train_batch_size=BATCH,
                    max_length=CONTEXT,
                    packing=True,
                    assistant_only_loss=True,
                    bf16=native_precision("cpu") is not None,
                    use_cpu=True,
                    gradient_checkpointing=False,
                    learning_rate=1e-4,
                    lr_scheduler_type="constant",
                    report_to=[],
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                    dataset_num_proc=None,
                )
                model = transformers.AutoModelForCausalLM.from_pretrained(folder / "model", dtype="float32")
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
                trainer = SFTTrainer(model, settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
                lengths = [len(row["input_ids"]) for row in trainer.train_dataset]
                seconds = trainer.train().metrics["train_runtime"]
                return STEPS * BATCH * float(np.mean(lengths)) / seconds

        compare("instruction tuning", ours, theirs, 1.3)


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    main()
