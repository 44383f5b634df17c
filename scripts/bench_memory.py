"""Measure the memory of LoRA on a Llama of 500 million parameters: of loading, and the peak of a complete run.

    python scripts/bench_memory.py                                    # weights in bfloat16, as they are saved
    python scripts/bench_memory.py backbone.checkpoint=true           # further overrides
    python scripts/bench_memory.py backbone.dtype=float32

The model has random weights; batches have 4 blocks of 256 tokens. Peaks are those of this process
(VmHWM). Loading is measured relative to the memory before, as a multiple of the weights.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parent))

from bench_language import CONTEXT, write_model, write_rows
from bench_text import config_of

from warmstart.config.resolve import with_initial_backbone
from warmstart.core import screen
from warmstart.stages import finetune
from warmstart.training import components
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.start import find_start, given_weights

STEPS, BATCH, ROWS, LIMIT = 3, 4, 100, 6000
SIZES = {"vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 34}


def write_large_model(folder: Path) -> None:
    """Write a Llama of 500 million parameters in bfloat16, and a tokenizer with fewer tokens than its vocabulary."""
    write_model(folder)
    config = transformers.LlamaConfig.from_pretrained(folder)
    for name, value in SIZES.items():
        setattr(config, name, value)
    config.num_attention_heads = config.num_key_value_heads = 16
    config.head_dim, config.dtype = 64, torch.bfloat16
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    screen.say(f"{sum(value.numel() for value in model.parameters()) / 1e6:.0f} million parameters")
    model.save_pretrained(folder)


def main() -> None:
    """Measure and print."""
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(chats := folder / "chats.jsonl")
        chats.write_text("".join(chats.open().readlines()[:ROWS]))
        write_large_model(folder / "model")
        config = config_of(
            *("stage=finetune", "experiment=chat", f"data.root={folder / 'chats.jsonl'}", "visualization=[]"),
            *("backbone=huggingface", f"init=hf:{folder / 'model'}", "strategy=lora", "data.pack=true", "logger=[]"),
            *(f"data.batch_size={BATCH}", f"data.tokenizer.context={CONTEXT}", f"output_dir={folder / 'outputs'}"),
            *("trainer.max_epochs=-1", f"trainer.max_steps={STEPS}", "trainer.min_steps=null"),
            *(f"trainer.val_check_interval={STEPS}", "trainer.check_val_every_n_epoch=null"),
            *("trainer.limit_val_batches=1", "+trainer.limit_test_batches=1", *sys.argv[1:]),
        )
        config = with_initial_backbone(config)
        reset_peak_memory()
        before = peak_memory_mb()
        start, _ = find_start(config)
        backbone = components.build(config.backbone, spec=start.spec, **given_weights(config, start))
        size = sum(value.nbytes for value in {**start.weights, **start.head}.values()) / 1e6
        loaded = peak_memory_mb() - before
        screen.say(f"loading: {size:,.0f} MB of weights, peak {loaded:,.0f} MB, {loaded / size:.2f} times the weights")
        del start, backbone
        run = finetune.run(config)
        peak = run.record["cost"]["peak_memory_mb"]
        screen.say(f"LoRA, {STEPS} steps of {BATCH} x {CONTEXT} tokens, test: peak {peak:,.0f} MB (limit {LIMIT:,})")
        if peak > LIMIT:
            sys.exit(1)


if __name__ == "__main__":
    main()
