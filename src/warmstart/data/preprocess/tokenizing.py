"""Tokenizers of the `tokenizers` library: trained on texts, and written for an exported model of transformers."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pandas as pd
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from warmstart.core.errors import UserError
from warmstart.core.reading import TOKENIZER_FILES, is_plain
from warmstart.core.spec import Vocabulary
from warmstart.data.storage import cache

ROLES = {"padding": "[PAD]", "unknown": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
VERSION = "2"  # of trained tokenizers in the cache
PIECE = 100_000  # maximum number of characters of a text for a trainer
COMMON = {"special_tokens": list(ROLES.values()), "show_progress": False}


def wordpiece(size: int, pieces: Sequence[str] = ()) -> tuple[Tokenizer, trainers.Trainer]:
    """Return an untrained WordPiece tokenizer with lower-casing, as in BERT (Devlin et al. 2019).

    Args:
        size: maximum vocabulary size.
        pieces: tokens that come first in the vocabulary, after the special ones.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=ROLES["unknown"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = {**COMMON, "special_tokens": [*COMMON["special_tokens"], *pieces]}
    return tokenizer, trainers.WordPieceTrainer(vocab_size=size, **special)


def bpe(size: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Return an untrained byte-level BPE tokenizer, as in GPT-2 (Radford et al. 2019), without unknown characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, **COMMON)


def unigram(size: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Return an untrained unigram tokenizer (Kudo 2018), whose pieces include spaces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, trainers.UnigramTrainer(vocab_size=size, unk_token=ROLES["unknown"], **COMMON)


def characters(size: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Return an untrained tokenizer of the most frequent characters."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=ROLES["unknown"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer, trainers.WordLevelTrainer(vocab_size=size, **COMMON)


MODELS = {"wordpiece": wordpiece, "bpe": bpe, "unigram": unigram, "characters": characters}


def train(model: str, size: int, texts: Callable[[], Iterable[str]]) -> str:
    """Train a tokenizer of this kind and maximum size on texts and return it as JSON; the result is cached.

    Raises:
        UserError: the model cannot be trained with this size.
    """

    def make(folder: cache.Path) -> None:
        tokenizer, trainer = MODELS[model](size)
        if model == "wordpiece":
            tokenizer, trainer = wordpiece(size, continuing_characters(texts))
        try:
            tokenizer.train_from_iterator(pieces(texts()), trainer)
        except Exception as error:  # the library raises no more specific class
            raise UserError(
                f"data.tokenizer.vocabulary={size}: the {model} tokenizer cannot be trained on this text: {error}"
            ) from error
        tokenizer = make_deterministic(tokenizer)
        count = tokenizer.get_vocab_size()
        if count > size:
            raise UserError(
                f"data.tokenizer.vocabulary={size} is too small: single characters need {count} tokens ({model})"
            )
        begin, end = ROLES["begin"], ROLES["end"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A {end}",
            pair=f"{begin} $A {end} $B:1 {end}:1",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (begin, end)],
        )
        (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")

    name = cache.key(VERSION, model, str(size), cache.texts_digest(texts()))
    return cache.entry("tokenizers", name, make, _read)


def continuing_characters(texts: Callable[[], Iterable[str]]) -> list[str]:
    """Return the WordPiece tokens of single characters inside words, sorted.

    The library numbers them in random order, by which it chooses between equally frequent pairs, unless they are given.
    """
    tokenizer, trainer = wordpiece(1)
    tokenizer.train_from_iterator(pieces(texts()), trainer)
    return sorted(token for token in tokenizer.get_vocab() if token.startswith("##") and len(token) == 3)


def make_deterministic(tokenizer: Tokenizer) -> Tokenizer:
    """Sort the ids of WordPiece and round the scores of Unigram, which vary between trainings."""
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model["type"] == "WordPiece":
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in ROLES.values()]
        special = list(ROLES.values())
        model["vocab"] = {token: n for n, token in enumerate([*special, *sorted(set(model["vocab"]) - set(special))])}
    elif model["type"] == "Unigram":
        model["vocab"] = [[piece, round(score, 6)] for piece, score in model["vocab"]]
    return Tokenizer.from_str(json.dumps(state))


def _read(folder: cache.Path) -> str:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    Tokenizer.from_str(text)
    return text


def pieces(texts: Iterable[str]) -> Iterator[str]:
    """Split long texts, so that the library can distribute them among threads."""
    for text in texts:
        yield from (text[start : start + PIECE] for start in range(0, max(1, len(text)), PIECE))


def vocabulary(tokenizer: Tokenizer, roles: dict[str, str | None]) -> Vocabulary:
    """Return the vocabulary size and the ids of special tokens; `roles` has the token of each role, or None."""
    numbers = {role: None if token is None else tokenizer.token_to_id(token) for role, token in roles.items()}
    padding = numbers.pop("padding", None)
    others = {number for number in numbers.values() if number is not None}
    added = [number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    known = {*added, *others}
    order = [padding, *(numbers.get(role) for role in ("end", "begin", "unknown"))]
    return Vocabulary(
        size=1 + max(tokenizer.get_vocab().values()),  # ids may have gaps
        padding=next((number for number in order if number is not None), 0),
        special=tuple(sorted(known | ({padding} if padding is not None else set()))),
        joined=joined(tokenizer),
        only_pads=padding is not None and padding not in {*others, *tokenizer.encode("a").ids},
        **{role: numbers.get(role) for role in ("unknown", "begin", "end", "mask")},
    )


def joined(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids of tokens that continue a word; empty if the tokenizer has no such marker."""
    settings = json.loads(tokenizer.to_str())
    words = tokenizer.get_vocab(with_added_tokens=False)
    prefix = settings["model"].get("continuing_subword_prefix")
    if prefix:
        return tuple(sorted(number for token, number in words.items() if token.startswith(prefix)))
    text = json.dumps(settings["pre_tokenizer"])
    start = "Ġ" if "ByteLevel" in text else "▁" if "Metaspace" in text else None
    if start is None:
        return ()
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return tuple(sorted(n for token, n in words.items() if not token.startswith(start) and token not in added))


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
        serial: tokenizer as JSON of the `tokenizers` library.
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
            update_json(
                folder / name, changes if name == SETTINGS else {k: v for k, v in changes.items() if k == "pad_token"}
            )
    _check(folder, card)


TEMPLATE, GENERATION = "chat_template.jinja", "generation_config.json"
OTHER_TEMPLATES = ("chat_template.json", SETTINGS)  # files with a template that transformers reads if there is no jinja


def write_chat_template(folder: Path, template: str) -> None:
    """Write the chat template of an exported tokenizer, which replaces that of its original files."""
    (folder / TEMPLATE).write_text(template, encoding="utf-8")
    for name in OTHER_TEMPLATES:
        path = folder / name
        settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if settings.pop("chat_template", None) is not None:
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_ends(folder: Path, ends: Sequence[int]) -> None:
    """Write the ids of the tokens after which `generate` stops, and the left padding that it needs."""
    if ends:
        update_json(folder / GENERATION, {"eos_token_id": list(ends)})
    update_json(folder / SETTINGS, {"padding_side": "left"})


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
        update_json(folder / SETTINGS, {"model_input_names": kept})


def update_json(path: Path, changes: dict[str, Any]) -> None:
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
