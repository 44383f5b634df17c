"""Tiny text-to-text models, as transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ["<pad>", "</s>", "<unk>", "<s>", "<mask>"]
ENDS = {"t5": "$A </s>", "bart": "<s> $A </s>"}


def saved_encoder_decoder(folder: Path, kind: str, context: int = 64) -> Path:
    """Save a T5 or a BART with random weights and a byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["color of the big and small things"] * 3, trainer)
    numbers = [(token, number) for number, token in enumerate(SPECIAL)]
    tokenizer.post_processor = processors.TemplateProcessing(single=ENDS[kind], special_tokens=numbers)
    roles = dict(zip(("pad_token", "eos_token", "unk_token", "bos_token", "mask_token"), SPECIAL))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **roles)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model_of(kind, len(fast), context).save_pretrained(folder)
    return folder


def model_of(kind: str, size: int, context: int) -> transformers.PreTrainedModel:
    """Return a model with random weights for a vocabulary of this size."""
    if kind == "t5":
        sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
        ids = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
        return transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=size, **sizes, **ids))
    halves = ("encoder", "decoder")
    sizes = {"d_model": 32, "dropout": 0.0, "max_position_embeddings": context}
    sizes |= {f"{half}_layers": 2 for half in halves} | {f"{half}_attention_heads": 4 for half in halves}
    sizes |= {f"{half}_ffn_dim": 64 for half in halves}
    ids = {"pad_token_id": 0, "bos_token_id": 3, "eos_token_id": 1, "decoder_start_token_id": 1}
    config = transformers.BartConfig(vocab_size=size, forced_eos_token_id=1, **sizes, **ids)
    return transformers.BartForConditionalGeneration(config)
