"""Load a model of Hugging Face with its tokenizer and preprocessor."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.reading import TOKENIZER_FILES, file_sha256, is_inside, is_plain
from warmstart.core.saved_model import SavedModel, spec_record
from warmstart.core.spec import Spec, Vocabulary
from warmstart.huggingface.configs import image, seq2seq, speech, text, whisper
from warmstart.huggingface.files import CARD, WEIGHTS, folder_of, read_json, shard_names
from warmstart.huggingface.resolve import node_of
from warmstart.huggingface.saved_heads import ctc_head, language_head, load, load_decoder, names_task, task_head
from warmstart.huggingface.tied import tied as names_of_tied


def open_hub(word: str, pooling: str | None = None, dtype: str = "float32") -> SavedModel:
    """Load a Hugging Face model: weights, preprocessor and, if supported, trained head.

    Args:
        word: hf:NAME_OR_DIR.
        pooling: set in the config, or None for that of the model.
        dtype: of the matrices of a causal language model: float32, bfloat16 or, by auto, bfloat16 if that is the dtype
            of the files, else float32. All other weights are float32.

    Raises:
        UserError: the model is unsupported or damaged, or its preprocessor belongs to another model.
    """
    folder = folder_of(word)
    node = node_of(word, folder, pooling)
    architecture = node["architecture"]
    if whisper.describes(architecture):
        return open_whisper(word, folder, node)
    changes = speech.OFF if speech.describes(architecture) else {}
    is_decoder = node["_target_"] == text.TARGET and text.is_causal(architecture) and not node["pooler"]
    decoder = load_decoder(word, folder, architecture, dtype) if is_decoder and not names_task(architecture) else None
    is_seq2seq = seq2seq.describes(architecture)
    if decoder is None:
        model, found = load(word, folder, seq2seq.AUTO if is_seq2seq else "AutoModel", **changes)
        missing = found["missing_keys"]
    else:
        model, missing, decoder_head = decoder
    has_pooler = node.get("pooler", node.get("pooling") == "pooler")
    tied = names_of_tied(model) if is_seq2seq else {}
    weights = {
        f"model.{name}": value
        for name, value in model.state_dict().items()
        if name not in {*missing, *tied} and (has_pooler or not name.startswith("pooler."))
    }
    head, task, labels = {}, None, ()
    if image.describes(architecture):
        preprocessor = image.preprocessor_of(word, folder, architecture)
        shape = tuple(preprocessor["shape"])
        task, head, labels = task_head(word, folder, architecture, node["pooling"], shape)
        spec = Spec("image", shape, labels)
    elif changes:
        preprocessor = speech.preprocessor_of(word, folder, architecture)
        task, head, labels = task_head(word, folder, architecture)
        if task is None:
            head, labels = ctc_head(word, folder, architecture)
        spec = Spec("speech", (preprocessor["rate"],), labels)
    else:
        task, head, labels = (seq2seq.TASK, {}, ()) if is_seq2seq else task_head(word, folder, architecture)
        if decoder is not None:
            head = decoder_head
        elif task is None and found["unexpected_keys"]:
            head = language_head(word, folder, architecture)
        most = getattr(model.config, "max_position_embeddings", None) or 0
        rows = len(model.get_input_embeddings().weight)
        preprocessor, spec = tokenizer_of(word, folder, architecture, rows, most)
        spec = dataclasses.replace(spec, labels=labels)
    card = {"stage": "hf", "backbone": node, "spec": spec_record(spec), **({"task": task} if task else {})}
    return SavedModel(folder, card, spec, _sha256(folder), weights, head, preprocessor)


def open_whisper(word: str, folder: Path, node: dict[str, Any]) -> SavedModel:
    """Load a Whisper with its tokenizer and the settings of its features; `node` is the config node of the backbone.

    Raises:
        UserError: weights are missing or damaged, or the tokenizer belongs to another model.
    """
    model, found = load(word, folder, whisper.AUTO, **speech.OFF)
    tied = set(model.all_tied_weights_keys)
    if missing := sorted(set(found["missing_keys"]) - tied):
        raise UserError(
            f"init={word}: the weights have no {missing[0]}: {len(missing)} tensors of the model are missing"
        )
    weights = {f"model.{name}": value for name, value in model.state_dict().items() if name not in tied}
    config = model.config
    tokenizer, spec = tokenizer_of(word, folder, node["architecture"], config.vocab_size, config.max_target_positions)
    preprocessor = whisper.preprocessor_of(word, folder, node["architecture"], tokenizer, config.vocab_size)
    spec = Spec("speech", (preprocessor["features"]["sampling_rate"],), vocabulary=spec.vocabulary)
    card = {"stage": "hf", "backbone": node, "spec": spec_record(spec), "task": whisper.TASK}
    return SavedModel(folder, card, spec, _sha256(folder), weights, {}, preprocessor)


def open_causal(word: str) -> tuple[Any, dict[str, Any], str]:
    """Load a causal language model with its head; return the transformers model, preprocessor state and SHA-256.

    Raises:
        UserError: the model is no causal language model, has no trained head, or is damaged.
    """
    folder = folder_of(word)
    architecture = node_of(word, folder, None).get("architecture", {})
    if speech.describes(architecture) or image.describes(architecture) or not text.is_causal(architecture):
        raise UserError(f"init={word}: a {architecture.get('model_type')} is no causal language model")
    model, found = load(word, folder, "AutoModelForCausalLM")
    if missing := sorted(set(found["missing_keys"]) - set(model.all_tied_weights_keys)):
        raise UserError(f"init={word}: its weights have no {missing[0]}, so it cannot predict the next token")
    most = getattr(model.config, "max_position_embeddings", None) or 0
    rows = len(model.get_input_embeddings().weight)
    preprocessor, _ = tokenizer_of(word, folder, architecture, rows, most)
    return model, preprocessor, _sha256(folder)


def _sha256(folder: Path) -> str:
    """Return the SHA-256 of the weights, or of the digests of their shards, in order."""
    if (folder / WEIGHTS).exists():
        return file_sha256(folder / WEIGHTS)
    digests = [file_sha256(folder / name) for name in shard_names("", folder)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


SERIAL, BINARY = "tokenizer.json", ".model"


def tokenizer_of(
    word: str, folder: Path, architecture: dict[str, Any], rows: int, most: int
) -> tuple[dict[str, Any], Spec]:
    """Return the state of a preprocessor with the tokenizer of the model, and its spec.

    Args:
        rows: number of rows of the embedding.
        most: maximum number of positions of the model; 0 or less if unknown.
    """
    check_names(word, folder)
    if (path := folder / "tokenizer.json").exists():
        try:
            Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises no more specific class
            raise UserError(f"init={word}: {path} is damaged: {error}") from error
    tokenizer = load(word, folder, "AutoTokenizer")
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise UserError(f"init={word}: the files in {folder} cannot be converted to a tokenizer.json: add one")
    numbers = tokenizer.get_vocab()
    size = 1 + max(numbers.values())
    if size > rows:
        raise UserError(
            f"init={word}: the tokenizer has {size:,} tokens, but the embedding of the model has {rows:,} rows: "
            "the tokenizer belongs to another model"
        )
    special_tokens = tokenizer.special_tokens_map
    differences = [f"{size:,} tokens for {rows:,} rows of the embedding"] if 2 * size < rows else []
    for role in ("pad", "bos", "eos", "cls", "sep", "mask"):
        here, there = numbers.get(special_tokens.get(f"{role}_token")), architecture.get(f"{role}_token_id")
        if None not in (here, there) and here not in (there if isinstance(there, list) else [there]):
            differences.append(f"{role}_token_id={here} but {there} in {CARD}")
    if differences:
        warning = f"warning: init={word}: the tokenizer may belong to another model: it has {', '.join(differences)}"
        screen.say(warning, style="yellow")
    first, last = ("cls_token", "bos_token"), ("sep_token", "eos_token")
    roles = {
        "padding": special_tokens.get("pad_token"),
        "unknown": special_tokens.get("unk_token"),
        "begin": next((special_tokens[key] for key in first if key in special_tokens), None),
        "end": next((special_tokens[key] for key in last if key in special_tokens), None),
        "mask": special_tokens.get("mask_token"),
    }
    known = {role: numbers.get(token) for role, token in roles.items()}
    order = ("padding", "end", "begin", "unknown")
    known["padding"] = next((known[role] for role in order if known[role] is not None), 0)
    others = {known[role] for role in ("unknown", "begin", "end", "mask")} | set(tokenizer("a")["input_ids"])
    only_pads = numbers.get(roles["padding"]) not in {None, *others}
    special = tuple(sorted(tokenizer.all_special_ids))
    vocabulary = Vocabulary(size=size, special=special, only_pads=only_pads, **known)
    context = min(tokenizer.model_max_length, most if most > 0 else 512)
    serial = tokenizer.backend_tokenizer.to_str()
    state = {
        "kind": "text",
        "model": json.loads(serial)["model"]["type"].lower(),
        "vocabulary": size,
        "context": context,
        "tokenizer": serial,
        "roles": roles,
        "types": "token_type_ids" in tokenizer.model_input_names,
        "files": read_tokenizer_files(folder, serial),
    }
    return state, Spec("text", (context,), vocabulary=vocabulary)


def check_names(word: str, folder: Path) -> None:
    """Check that the settings of a tokenizer refer to files in its folder only.

    Raises:
        UserError: a file is outside of the folder.
    """
    path = folder / "tokenizer_config.json"
    files = read_json(word, path).get("fast_tokenizer_files") if path.exists() else None
    for name in files if isinstance(files, list) else []:
        if not is_plain(name):
            raise UserError(
                f"init={word}: {path}: fast_tokenizer_files has {name!r}, which is not a file of its folder"
            )


def read_tokenizer_files(folder: Path, serial: str) -> dict[str, str]:
    """Return the tokenizer files by name, for export, with sentencepiece files in base64.

    tokenizer.json is included only if it differs from `serial`.

    Raises:
        UserError: a file is a link to outside of the folder.
    """
    found = {}
    for path in sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}):
        if not is_inside(path, folder):
            raise UserError(
                f"{path} is a link to {os.path.realpath(path)}, outside of the model folder: replace it by a copy"
            )
        content = path.read_bytes()
        text = base64.b64encode(content).decode() if path.suffix == BINARY else content.decode("utf-8")
        if path.name != SERIAL or Tokenizer.from_str(text).to_str() != serial:
            found[path.name] = text
    return found
