"""Write and verify the tokenizer files of an exported model of transformers."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Tokenizer
from torch import Tensor

from warmstart.core.errors import UserError
from warmstart.core.reading import TOKENIZER_FILES, is_plain

SERIAL, SETTINGS, SPECIAL = "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"
BINARY = ".model"  # extension of sentencepiece files, stored in base64
NAMES = {
    "padding": ("pad_token",),
    "unknown": ("unk_token",),
    "begin": ("cls_token", "bos_token"),
    "end": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}
PLAIN = ["A film to remember, and a fine one.", "Not good.", "It is what it is", "Why would anyone see this twice?"]


def write(
    folder: Path, serial: str, roles: dict[str, str | None], context: int, files: dict[str, str] | None = None
) -> None:
    """Write a tokenizer to the folder of a saved model of transformers, whose config.json has the padding id.

    Original files are unchanged, except for the padding token, the maximum length and the truncation side.

    Args:
        folder: folder of the model.
        serial: tokenizer as JSON of the `tokenizers` library.
        roles: tokens for padding, unknown, begin, end and mask.
        context: maximum number of tokens of an example.
        files: original files by name, those of sentencepiece in base64.

    Raises:
        UserError: the padding id of the tokenizer differs from that of the model.
    """
    card = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name, text in {SERIAL: serial, **(files or {})}.items():
        if not is_plain(name) or not any(fnmatchcase(name, pattern) for pattern in TOKENIZER_FILES):
            raise UserError(f"the saved preprocessor is damaged: {name!r} is not a tokenizer file")
        path = folder / name
        path.write_bytes(base64.b64decode(text) if path.suffix == BINARY else text.encode("utf-8"))
    changes: dict[str, Any] = {"model_max_length": context, "truncation_side": "right"}
    if not str((card.get("architectures") or [""])[0]).endswith("CausalLM"):
        changes["padding_side"] = "right"  # only generation needs the left side
    special = {name: token for role, token in roles.items() if token is not None for name in NAMES[role]}
    if not files:
        changes |= {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    tokenizer = Tokenizer.from_str(serial)
    if (number := card.get("pad_token_id")) is not None:
        changes["pad_token"] = tokenizer.id_to_token(number) or new_token(tokenizer)
    for name in (SETTINGS, SPECIAL):
        if name == SETTINGS or (folder / name).exists():
            _update_json(
                folder / name, changes if name == SETTINGS else {k: v for k, v in changes.items() if k == "pad_token"}
            )
    _check(folder, card)


def _check(folder: Path, card: dict[str, Any]) -> None:
    """Load the tokenizer, and remove `model_input_names` that the model does not take.

    Raises:
        UserError: it cannot be loaded, or its padding id differs from that of the model.
    """
    import transformers

    tokenizer = load(folder)
    if card.get("pad_token_id") is not None and tokenizer.pad_token_id != card["pad_token_id"]:
        raise UserError(
            f"the exported tokenizer has padding id {tokenizer.pad_token_id}, but the model has "
            f"{card['pad_token_id']}: the model was not exported"
        )
    model = getattr(transformers, (card.get("architectures") or [""])[0], None)
    accepted = inspect.signature(model.forward).parameters if model is not None else tokenizer.model_input_names
    kept = [name for name in tokenizer.model_input_names if name in accepted]
    if kept != tokenizer.model_input_names:
        _update_json(folder / SETTINGS, {"model_input_names": kept})


def _update_json(path: Path, changes: dict[str, Any]) -> None:
    """Update the settings of a JSON file, which is created if it is missing."""
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(settings | changes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def new_token(tokenizer: Tokenizer) -> str:
    """Return a name for a padding token that is not in the vocabulary."""
    names = ("<|pad|>", *(f"<|pad_{number}|>" for number in range(1, 1000)))
    return next(name for name in names if tokenizer.token_to_id(name) is None)


def load(folder: Path) -> Any:
    """Load the tokenizer of a folder with transformers.

    Raises:
        UserError: transformers cannot load it.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raise many classes of errors
        raise UserError(f"transformers cannot load the exported tokenizer: {str(error).splitlines()[0]}") from error


def reader(folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
    """Return a function that tokenizes raw rows with the tokenizer of a folder."""
    tokenizer = load(folder)

    def encode(x: pd.DataFrame) -> dict[str, Tensor]:
        columns = [list(x[name]) for name in ("text", "pair") if name in x]
        words = not isinstance(columns[0][0], str)
        columns = [[list(cell) for cell in column] for column in columns] if words else columns
        settings = {"padding": True, "truncation": True, "padding_side": "right", "return_tensors": "pt"}
        return dict(tokenizer(*columns, is_split_into_words=words, **settings))

    return encode


def probes(roles: dict[str, str | None], columns: int, words: bool = False) -> pd.DataFrame:
    """Return texts, some of which contain or end with each special token; with two columns, pairs of texts.

    With `words`, texts are lists of words without special tokens.
    """
    if words:
        return pd.DataFrame({"text": [text.split() for text in PLAIN]})
    special = [token for token in dict.fromkeys(roles.values()) if token is not None]
    texts = [*PLAIN, *(f"happy {token}" for token in special), *(f"so {token} happy" for token in special)]
    table = pd.DataFrame({"text": texts})
    return table.assign(pair=list(reversed(texts))) if columns == 2 else table
