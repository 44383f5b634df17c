"""Train tokenizers of the `tokenizers` library on texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from warmstart.core.errors import UserError
from warmstart.core.spec import Vocabulary
from warmstart.data.storage import cache

ROLES = {"padding": "[PAD]", "unknown": "[UNK]", "begin": "[CLS]", "end": "[SEP]", "mask": "[MASK]"}
PIECE = 100_000  # maximum number of characters of a text for a trainer
COMMON = {"special_tokens": list(ROLES.values()), "show_progress": False}


def wordpiece(size: int) -> tuple[Tokenizer, trainers.Trainer]:
    """Return an untrained WordPiece tokenizer with lower-casing, as in BERT (Devlin et al. 2019)."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=ROLES["unknown"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, trainers.WordPieceTrainer(vocab_size=size, **COMMON)


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
    """Train a tokenizer on texts and return it as JSON; the result is cached.

    Args:
        model: wordpiece, bpe, unigram or characters.
        size: maximum vocabulary size.
        texts: function that returns an iterable of the texts.

    Raises:
        UserError: the model cannot be trained with this size.
    """

    def make(folder: cache.Path) -> None:
        tokenizer, trainer = MODELS[model](size)
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

    name = cache.key(model, str(size), cache.texts_digest(texts()))
    return cache.entry("tokenizers", name, make, _read)


def make_deterministic(tokenizer: Tokenizer) -> Tokenizer:
    """Sort the ids of WordPiece and round the scores of Unigram, which vary between trainings."""
    state = json.loads(tokenizer.to_str())
    model = state["model"]
    if model["type"] == "WordPiece":
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
    """Return the vocabulary size and the ids of special tokens.

    Args:
        tokenizer: a tokenizer of the library.
        roles: tokens for padding, unknown, begin, end and mask, or None.
    """
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
