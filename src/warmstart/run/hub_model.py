"""The weights, the head and the preprocessor of a Hugging Face model, as those of a saved backbone."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from warmstart.contracts import Spec
from warmstart.run import hub_images, hub_speech
from warmstart.run.hub import node_of
from warmstart.run.hub_folder import WEIGHTS, folder_of, shard_names
from warmstart.run.hub_heads import ctc_head, language_head, task_head
from warmstart.run.hub_load import load
from warmstart.run.hub_tokenizer import tokenizer_of
from warmstart.run.identity import file_sha256
from warmstart.run.saved import SavedModel, spec_record


def open_hub(word: str, pooling: str | None = None) -> SavedModel:
    """A Hugging Face model as a saved backbone: weights in float32, its preprocessor, its trained head if it is taken.

    Args:
        word: hf:NAME_OR_DIR.
        pooling: that of the config, where it is not what `adopt` chooses.

    Raises:
        UserError: it is none that can be used, is damaged, or its preprocessor is another model's.
    """
    folder = folder_of(word)
    node = node_of(word, folder, pooling)
    architecture = node["architecture"]
    changes = hub_speech.OFF if hub_speech.describes(architecture) else {}
    model, found = load(word, folder, "AutoModel", **changes)
    has_pooler = node.get("pooler", node.get("pooling") == "pooler")
    weights = {
        f"model.{name}": value
        for name, value in model.state_dict().items()
        if name not in found["missing_keys"] and (has_pooler or not name.startswith("pooler."))
    }
    head, task, labels = {}, None, ()
    if hub_images.describes(architecture):
        preprocessor = hub_images.preprocessor_of(word, folder, architecture)
        shape = tuple(preprocessor["shape"])
        task, head, labels = task_head(word, folder, architecture, node["pooling"], shape)
        spec = Spec("image", shape, labels)
    elif changes:
        preprocessor = hub_speech.preprocessor_of(word, folder, architecture)
        task, head, labels = task_head(word, folder, architecture)
        if task is None:
            head, labels = ctc_head(word, folder, architecture)
        spec = Spec("speech", (preprocessor["rate"],), labels)
    else:
        task, head, labels = task_head(word, folder, architecture)
        if task is None and found["unexpected_keys"]:
            head = language_head(word, folder, architecture)
        most = getattr(model.config, "max_position_embeddings", None) or 0
        rows = len(model.get_input_embeddings().weight)
        preprocessor, spec = tokenizer_of(word, folder, architecture, rows, most)
        spec = dataclasses.replace(spec, labels=labels)
    card = {"stage": "hf", "backbone": node, "spec": spec_record(spec), **({"task": task} if task else {})}
    return SavedModel(folder, card, spec, _sha256(folder), weights, head, preprocessor)


def _sha256(folder: Path) -> str:
    """Of the weights' file, or of the digests of its shards, in order."""
    if (folder / WEIGHTS).exists():
        return file_sha256(folder / WEIGHTS)
    digests = [file_sha256(folder / name) for name in shard_names("", folder)]
    return hashlib.sha256("".join(digests).encode()).hexdigest()
