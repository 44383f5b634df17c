"""A tiny Whisper with its own tokenizer and the real feature extractor, as transformers saves it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

RATE = 16_000
SECONDS = 2  # maximum length of a recording, 30 in released models
WORDS = {"low": 300.0, "middle": 900.0, "high": 2700.0}  # Hz
LANGUAGES = ("en", "zh", "de")  # in the order of transformers
TIMES = tuple(f"<|{number * 0.02:.2f}|>" for number in range(50 * SECONDS + 1))
SPECIAL = (
    *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES)),
    *("<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)


def saved_whisper(folder: Path, seconds: int = SECONDS, **settings: object) -> Path:
    """Save a Whisper with random weights; `settings` are of its generation_config.json."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([" ".join(WORDS)] * 3, trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet))
    found = json.loads(bpe.to_str())["model"]
    tokenizer = transformers.WhisperTokenizer(
        found["vocab"], [tuple(pair) for pair in found["merges"]], pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.add_tokens(list(TIMES))
    tokenizer.save_pretrained(folder)
    number = tokenizer.get_vocab()
    transformers.WhisperFeatureExtractor(chunk_length=seconds).save_pretrained(folder)
    end = number["<|endoftext|>"]
    ids = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    ids["decoder_start_token_id"] = number["<|startoftranscript|>"]
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(number),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_source_positions=50 * seconds,
            max_target_positions=32,
            init_std=0.2,
            **ids,
        )
    )
    given = {
        "is_multilingual": True,
        "lang_to_id": {f"<|{code}|>": number[f"<|{code}|>"] for code in LANGUAGES},
        "task_to_id": {task: number[f"<|{task}|>"] for task in ("translate", "transcribe")},
        "no_timestamps_token_id": number["<|notimestamps|>"],
        "suppress_tokens": [number["!"], number["<|nospeech|>"]],
        "begin_suppress_tokens": [number["Ġ"], end],
        "max_length": 32,
        **ids,
    }
    model.generation_config = transformers.GenerationConfig(**{**given, **settings})
    model.save_pretrained(folder)
    return folder


def made_recordings(folder: Path, rows: int, column: str = "text") -> Path:
    """Write recordings of one to three tones, whose names are the text, and their manifest; return the manifest."""
    generator = np.random.default_rng(0)
    names, lines = list(WORDS), []
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(rows):
        words = [names[number] for number in generator.integers(0, len(names), generator.integers(1, 4))]
        time = np.arange(round(0.3 * RATE)) / RATE
        tones = [np.sin(2 * np.pi * WORDS[word] * time) for word in words]
        wave = 0.3 * np.concatenate(tones) + generator.normal(0, 0.003, len(words) * len(time))
        soundfile.write(folder / f"{row:03}.wav", wave.astype(np.float32), RATE)
        lines.append({"audio": f"{row:03}.wav", column: " ".join(words)})
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder / "manifest.jsonl"
