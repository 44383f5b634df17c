"""Preprocessor of Whisper: log-mel features of recordings, and texts with tokens of language and task."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from torch import Tensor

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.spec import Vocabulary
from warmstart.data.preprocess import tokenizing
from warmstart.data.readers import recordings
from warmstart.data.storage.padded_frames import FixedFrames
from warmstart.data.storage.ragged import Ragged

NONE = -100  # label of padding, as in transformers
START, END, NO_TIMES, FIRST_TIME = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>", "<|0.00|>"
GENERATION = "generation_config.json"
RANGE = (-1.0, 1.5)  # of features, black and white in images


class Preprocessor(recordings.TakesRecordings):
    """Raw inputs are tables with the columns audio (waveforms), rate (Hz) and file; targets are texts.

    Args:
        language: code or English name of the language of the recordings; None for that of the model, else English.
        task: transcribe, or translate to English.
        timestamps: whether texts have tokens of times, such as <|0.00|>; without them, Whisper is asked for none.
        too_long: truncate texts that are longer than the decoder, or error to refuse them.
        features: settings of the feature extractor of the model.
        context: maximum number of tokens of the decoder.
        multilingual: whether the model has languages and tasks.
        tokenizer: fitted state, as JSON of the `tokenizers` library.
        roles: tokens for padding, unknown, begin, end and mask.
        files: files of the tokenizer of the model, by name.
        column: column of recordings in tables.
        dialect: format of the tables.
        cluster: column of clusters in tables.
        pieces: maximum number of labels of transcripts, for CTC; None for characters.
    """

    abilities: ClassVar = recordings.TakesRecordings.abilities | {"decode", "to_images"}
    spectral: ClassVar = False
    held_out_batch: ClassVar = 16  # the encoder computes 30 s of each recording
    normalize: ClassVar = "utterance"

    def __init__(
        self,
        language: str | None = None,
        task: Literal["transcribe", "translate"] = "transcribe",
        timestamps: bool = False,
        too_long: Literal["truncate", "error"] = "error",
        features: dict[str, int] | None = None,
        context: int = 448,
        multilingual: bool = True,
        tokenizer: str | None = None,
        roles: dict[str, str | None] | None = None,
        files: dict[str, str] | None = None,
        column: str | None = None,
        dialect: dict[str, Any] | None = None,
        cluster: str | None = None,
        pieces: int | None = None,
    ):
        super().__init__(column, dialect, cluster, pieces)
        self.language, self.task, self.timestamps, self.too_long = language, task, timestamps, too_long
        self.features, self.context, self.multilingual = features, context, multilingual
        self.tokenizer, self.roles, self.files = tokenizer, dict(roles or tokenizing.ROLES), files

    @property
    def longest(self) -> float:
        """Maximum length of a recording in seconds."""
        return float((self.features or {}).get("chunk_length", 30))

    @property
    def seconds(self) -> float:
        """Seconds between features of the encoder."""
        return 2 * self.features["hop_length"] / self.features["sampling_rate"]

    def fit(self, x: pd.DataFrame) -> None:
        """Raise UserError: all settings come from a model."""
        raise UserError(
            "data/frames=whisper computes the features of a pretrained Whisper: set init=hf:NAME_OR_DIR, or choose "
            "data/frames=log_mel"
        )

    def adapted(self, own: Any) -> Preprocessor:
        """Return this preprocessor with the language, task and tables of another one, `own`.

        Raises:
            UserError: the model has no such language or task.
        """
        adapted = super().adapted(own)
        if not isinstance(own, Preprocessor):
            return adapted  # for an objective without texts; `labels` refuses others
        adapted.language = self.language if own.language is None else own.language
        adapted.task, adapted.timestamps, adapted.too_long = own.task, own.timestamps, own.too_long
        adapted.__dict__.pop("prefix", None)
        if adapted.multilingual and adapted.language is None:
            adapted.language = "en"
            screen.say(
                "warning: data.frames.language is not set: the texts are taken to be English (en)", style="yellow"
            )
        adapted.prefix  # noqa: B018, checks language and task
        return adapted

    @functools.cached_property
    def backend_tokenizer(self) -> Tokenizer:
        """Tokenizer of the `tokenizers` library, which takes special tokens in texts as plain text."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True
        return tokenizer

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | None:
        """Size of the vocabulary and ids of special tokens; None without a model."""
        return None if self.tokenizer is None else tokenizing.vocabulary(self.backend_tokenizer, self.roles)

    @functools.cached_property
    def prefix(self) -> tuple[int, ...]:
        """Ids of the tokens between that which starts the decoder and a text: language, task and <|notimestamps|>.

        Raises:
            UserError: the model has no such language or task.
        """
        names = []
        if self.multilingual:
            names = [f"<|{self.code()}|>", f"<|{self.task}|>"]
        elif self.task != "transcribe" or self.language not in (None, "en", "english"):
            raise UserError(
                f"data.frames.language={self.language} data.frames.task={self.task}: this Whisper is for English only: "
                "use a multilingual one"
            )
        ids = [self._id(name) for name in (*names, *(() if self.timestamps else (NO_TIMES,)))]
        return tuple(ids)

    def code(self) -> str:
        """Return the code of the language.

        Raises:
            UserError: it has none, or the model does not have it.
        """
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        known = {code for code in TO_LANGUAGE_CODE.values() if self.backend_tokenizer.token_to_id(f"<|{code}|>")}
        name = str(self.language or "en").lower()
        code = TO_LANGUAGE_CODE.get(name, name)
        if code not in known:
            shown = ", ".join(sorted(known))
            raise UserError(f"data.frames.language={self.language}: this Whisper has no such language; it has {shown}")
        return code

    def _id(self, name: str) -> int:
        number = self.backend_tokenizer.token_to_id(name)
        if number is None:
            raise UserError(f"the tokenizer of this model has no token {name}: it is not that of a Whisper")
        return number

    def encode(self, x: pd.DataFrame) -> FixedFrames:
        """Return log-mel features (V, mels) of all recordings, float32; they are cached.

        Frames of the silence after a recording are equal, and only the first is stored.

        Raises:
            UserError: a recording is longer than the model takes.
        """
        seconds = np.array([len(values) for values in x["audio"]]) / x["rate"].to_numpy()
        if (wrong := np.flatnonzero(seconds > self.longest)).size:
            row = wrong[0]
            raise UserError(
                f"{x['file'].iloc[row]} is {seconds[row]:.1f} s long; with it, {len(wrong):,} recordings are longer "
                f"than the {self.longest:g} s that a Whisper takes: select parts by columns offset and duration"
            )
        settings, empty = f"whisper {sorted(self.features.items())}", np.zeros((0, self.mels), np.float32)
        values, starts = recordings.cached_rows("whisper", settings, x, lambda: self.log_mels(x), empty)
        return FixedFrames(values, starts, self.frames)

    @property
    def mels(self) -> int:
        """Number of mel bands."""
        return self.features["feature_size"]

    @property
    def frames(self) -> int:
        """Number of frames of a row."""
        return self.features["chunk_length"] * self.features["sampling_rate"] // self.features["hop_length"]

    def log_mels(self, x: pd.DataFrame) -> list[np.ndarray]:
        """Return the features (T, mels) of each recording, up to the first frame of the silence after it."""
        from transformers import WhisperFeatureExtractor

        extractor = WhisperFeatureExtractor(**self.features)
        rate, hop, size = (self.features[name] for name in ("sampling_rate", "hop_length", "n_fft"))
        found = []
        for wave in recordings.waves_at(x, rate):
            count = min(self.frames, math.ceil((len(wave) + size // 2) / hop) + 1)
            samples = min(extractor.n_samples, count * hop + size)
            features = extractor(np.asarray(wave), sampling_rate=rate, max_length=samples)["input_features"][0]
            found.append(np.asarray(features, np.float32).T[:count])
        return found

    def align(self, x: pd.DataFrame, y: Any, target: str) -> tuple[FixedFrames, Ragged | None]:
        """Return encoded recordings and the token ids of each text: `prefix`, the text, and the end; padding is -100.

        Raises:
            UserError: the targets are no texts, or a text is longer than the decoder and `too_long` is error.
        """
        if target != "sequence":
            raise UserError(f"a Whisper has no targets of kind {target}: use objective=transcription")
        encoded = self.encode(x)
        return encoded, None if y is None else self.labels(list(y), x["file"].tolist())

    def labels(self, texts: Sequence[str], names: Sequence[str]) -> Ragged:
        """Return the token ids of each text; `names` of recordings are for messages."""
        if self.multilingual and self.language is None:
            raise UserError("the texts have no language: choose data/frames=whisper and set data.frames.language")
        end = (self._id(END),)
        found = self.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [np.array([*self.prefix, *row.ids, *end], dtype=np.int32) for row in found]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        if (longer := np.flatnonzero(lengths > self.context)).size:
            what = f"{len(longer):,} of {len(rows):,} texts are longer than the {self.context} tokens of the decoder"
            if self.too_long == "error":
                raise UserError(
                    f"{what}, the first is that of {names[longer[0]]}: cut the recordings, remove them, or set "
                    "data.frames.too_long=truncate"
                )
            screen.say(f"warning: {what}: they are truncated", style="yellow")
        values = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return Ragged(values, np.cumsum([0, *lengths], dtype=np.int64), lengths, NONE, self.context, end)

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens and, unless `timestamps` is set, without times."""
        first = None if self.timestamps else self.backend_tokenizer.token_to_id(FIRST_TIME)
        kept = [number for number in numbers if first is None or number < first]
        return self.backend_tokenizer.decode(kept, skip_special_tokens=True)

    def __call__(self, x: Tensor) -> Tensor:
        """Return x: `encode` has scaled the features."""
        return x

    def flat(self, x: FixedFrames) -> np.ndarray:
        """Return mean and standard deviation of each band over a recording (N, 2 * mels)."""
        parts = [np.asarray(x.values[start:stop]) for start, stop in zip(x.starts, x.starts[1:])]
        return np.stack([np.concatenate([part.mean(0), part.std(0)]) for part in parts])

    def to_images(self, x: Tensor) -> Tensor:
        """Convert a batch (B, T, mels) to images (B, 1, mels, T), low bands at the bottom."""
        low, high = RANGE
        return ((x.transpose(1, 2).flip(1)[:, None] - low) / (high - low)).clamp(0, 1)

    def export(self, folder: Path) -> None:
        """Write tokenizer and feature extractor of transformers, and language and task for its `generate`."""
        tokenizing.write(folder, self.tokenizer, self.roles, self.context, self.files)
        tokenizing.update_json(
            folder / tokenizing.SETTINGS, {"model_input_names": ["input_ids", "attention_mask"]}
        )  # which the class of the model does not take by these names
        settings = {"feature_extractor_type": "WhisperFeatureExtractor", **self.features}
        settings |= {"padding_value": 0.0, "padding_side": "right", "return_attention_mask": False}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        if self.multilingual and (folder / GENERATION).exists():
            given = {"language": self.code(), "task": self.task, "is_multilingual": True}
            given |= {"lang_to_id": self._ids_of_languages(), "no_timestamps_token_id": self._id(NO_TIMES)}
            if not self.timestamps:
                known = json.loads((folder / GENERATION).read_text()).get("suppress_tokens") or ()
                times = range(self._id(NO_TIMES) + 1, self.vocabulary.size)
                given["suppress_tokens"] = sorted({*known, *times})
            given["task_to_id"] = {task: self._id(f"<|{task}|>") for task in ("transcribe", "translate")}
            tokenizing.update_json(folder / GENERATION, given)

    def _ids_of_languages(self) -> dict[str, int]:
        """Return the id of the token of each language."""
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        found = {f"<|{code}|>": self.backend_tokenizer.token_to_id(f"<|{code}|>") for code in TO_LANGUAGE_CODE.values()}
        return {name: number for name, number in found.items() if number is not None}

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """Return a function that computes features of raw recordings with the exported config and transformers only."""
        from transformers import AutoFeatureExtractor

        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        rate = self.features["sampling_rate"]
        settings = {"sampling_rate": rate, "return_tensors": "pt"}
        return lambda x: dict(extractor([np.array(wave) for wave in recordings.waves_at(x, rate)], **settings))

    def probes(self, target: str | None) -> pd.DataFrame:
        """Return recordings of noise of different lengths to verify an exported model with."""
        generator, rate = np.random.default_rng(0), self.features["sampling_rate"]
        waves = [generator.normal(0, 0.1, round(rate * length)).astype(np.float32) for length in (0.5, 0.8, 0.3)]
        files = [f"noise {number}" for number in range(len(waves))]
        return pd.DataFrame({"audio": waves, "rate": rate, "file": files})

    def state(self) -> dict[str, Any]:
        names = ("language", "task", "timestamps", "too_long", "features", "context", "multilingual")
        state = {name: getattr(self, name) for name in (*names, "tokenizer", "roles")}
        return {"kind": "whisper", **state, **({"files": self.files} if self.files else {}), **self.table_state()}
