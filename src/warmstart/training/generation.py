"""Generates with the causal language model of a run, by transformers and its key-value cache."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from hydra.utils import get_object
from omegaconf import DictConfig

from warmstart.config.resolve import RUN_STAGES, is_able
from warmstart.core import screen
from warmstart.core.batch import Prompt, Rows
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Preprocessor, generates, translates
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import evenly
from warmstart.data.preprocess import rebuild, rebuild_for_prompts
from warmstart.huggingface import export
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import find, runs_of
from warmstart.training.decoding import SAMPLING, by_length, sampling_arguments
from warmstart.training.restore import exported
from warmstart.training.session import Session
from warmstart.training.text_to_text import TextToText
from warmstart.training.trainer import machine_trainer

LENGTH = 200  # maximum number of tokens generated for a test prompt
POSITION_EMBEDDINGS = ("wpe", "position_embeddings", "embed_positions")  # names in transformers


class Generator:
    """Continues prompts with a model of transformers.

    Args:
        model: causal language model.
        preprocessor: with the ability `prompts`.
        trained: number of positions of the rows that the model was trained on.
        length: maximum number of tokens to generate.
        temperature: divisor of the logits before sampling; 0 for greedy decoding.
        top_k: number of most probable tokens to sample among; None for all.
        top_p: total probability of the most probable tokens to sample among; None for all.
    """

    def __init__(
        self,
        model: Any,
        preprocessor: Preprocessor,
        trained: int,
        length: int = LENGTH,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ):
        self.model, self.preprocessor, self.trained, self.length = model.eval(), preprocessor, trained, length
        self.context = getattr(model.config, "max_position_embeddings", None) or math.inf
        self.streams, self.ends = True, frozenset(preprocessor.ends)
        model.generation_config = transformers.GenerationConfig(
            max_new_tokens=length,
            eos_token_id=list(preprocessor.ends) or None,
            pad_token_id=preprocessor.vocabulary.padding,
            use_cache=True,
            **sampling_arguments(temperature, top_k, top_p),
        )

    @classmethod
    def open(cls, run: RunFolder, config: DictConfig, trained_config: DictConfig) -> tuple[Generator, SavedModel]:
        """Return a generator with the model of a run, on the device of its training, and the saved model.

        Args:
            config: settings of the generation.
            trained_config: config of the run.

        Raises:
            UserError: the model does not predict the next token.
        """
        if not generates(get_object(trained_config.objective._target_)):
            raise UserError(
                f"{run.path} was not trained to predict the next token: use objective=causal, or a finetuning on "
                "conversations (experiment=chat) or on pairs of texts (experiment=seq2seq)"
            )
        model, _, saved = exported(run, trained_config)
        if not model.can_generate():
            raise UserError(f"{run.path}: transformers cannot generate with {type(model).__name__}")
        settings = sampling_of(config)
        device = machine_trainer(trained_config.trainer, run.path).strategy.root_device
        return cls(model.to(device), rebuild(saved.preprocessor), saved.spec.shape[0], **settings), saved

    @classmethod
    def open_hub(cls, init: Init, config: DictConfig) -> tuple[Generator, dict[str, Any]]:
        """Return a generator with a Hugging Face model, on a GPU if there is one, and its parent record.

        Raises:
            UserError: it is no causal language model.
        """
        from warmstart.huggingface.load import open_causal  # imports transformers

        try:
            model, state, digest = open_causal(str(init))
        except UserError as error:
            raise UserError(str(error).replace(f"init={init}", f"run={init}")) from error
        preprocessor = rebuild_for_prompts(state)
        settings = sampling_of(config)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        path = str(Path(init.path).resolve()) if Path(init.path).is_dir() else init.path
        parent = {"id": None, "weights_sha256": digest, "path": str(replace(init, path=path))}
        return cls(model.to(device), preprocessor, preprocessor.context, **settings), parent

    def starts(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """Return the token ids of prompts.

        Raises:
            UserError: a prompt is longer than the context, or is not supported by the preprocessor.
        """
        starts = []
        for prompt in prompts:
            where = "prompt" if prompt.row is None else f"row {prompt.row}: the prompt"
            try:
                start = self.preprocessor.prompt(prompt.given)
            except UserError as error:
                raise UserError(str(error) if prompt.row is None else f"row {prompt.row}: {error}") from error
            if len(start) >= self.context:
                raise UserError(
                    f"{where} has {len(start):,} tokens, but the context of the model has {self.context:,}: shorten it"
                )
            starts.append(start)
        self._check_length(max(map(len, starts)) + self.length)
        return starts

    def _check_length(self, longest: int) -> None:
        """Check the number of tokens of a prompt and its continuation.

        Raises:
            UserError: the model has no embeddings for so many positions.
        """
        if longest > self.context and has_position_table(self.model):
            raise UserError(
                f"prompt and length have {longest} tokens, but the model has {self.context} positions: decrease length"
            )
        if longest > self.trained:
            trained = f"the model was trained on at most {self.trained}"
            screen.say(f"warning: prompt and length have up to {longest} tokens; {trained}", style="yellow")

    def generate(self, starts: Sequence[list[int]], most: float = math.inf) -> list[str]:
        """Return the continuation of each list of token ids, in batches of rows of similar length.

        Args:
            most: maximum number of positions of a batch.
        """

        def continued(rows: list[list[int]]) -> list[str]:
            return self.batch(rows, length=min(self.length, most - len(rows[-1])))

        return by_length(starts, continued)

    def batch(self, starts: Sequence[list[int]], streamer: Any = None, length: int | None = None) -> list[str]:
        """Return the continuation of each list of token ids, which are padded on the left.

        Args:
            streamer: streamer of transformers, for a single row.
            length: maximum number of tokens to generate, if it is not that of the generator.
        """
        width = max(map(len, starts))
        padding = self.model.generation_config.pad_token_id
        ids = torch.tensor([[padding] * (width - len(start)) + start for start in starts], device=self.model.device)
        mask = torch.tensor([[0] * (width - len(start)) + [1] * len(start) for start in starts], device=ids.device)
        limit = {} if length is None else {"max_new_tokens": length}
        found = self.model.generate(ids, attention_mask=mask, streamer=streamer, **limit)
        return [self._continuation(start, row[width:]) for start, row in zip(starts, found.tolist())]

    def _continuation(self, start: list[int], found: list[int]) -> str:
        """Return the generated text up to an end token, as it follows the prompt."""
        end = next((position for position, number in enumerate(found) if number in self.ends), len(found))
        before, complete = self.preprocessor.decode(start), self.preprocessor.decode([*start, *found[:end]])
        if complete.startswith(before):
            return complete[len(before) :]
        return self.preprocessor.decode(found[:end])


def sampling_of(config: DictConfig) -> dict[str, Any]:
    """Return the settings of the generation of a causal model, which samples by default."""
    settings = {name: config[name] for name in SAMPLING}
    return settings | ({"temperature": 1.0} if config.temperature is None else {})


def open_generator(config: DictConfig) -> tuple[Generator | TextToText, dict[str, Any], RunFolder | str]:
    """Return a generator with the model of `run`, its parent record, and its run or hf:NAME_OR_DIR.

    Raises:
        UserError: there is no such run or model, or it does not predict the next token.
    """
    init = Init.parse(str(config.run))
    if init.is_pretrained_hub:
        generator, parent = Generator.open_hub(init, config)
        return generator, parent, parent["path"]
    run = find_run(config)
    trained_config = run.config(tuple(config.trust))
    kind = TextToText if translates(get_object(trained_config.objective._target_)) else Generator
    generator, saved = kind.open(run, config, trained_config)
    parent = {"id": run.record["id"], "weights_sha256": saved.weights_sha256}
    return generator, parent, run


def name_of(trained: RunFolder | str) -> str:
    """Return the path of a run, or hf:NAME_OR_DIR."""
    return trained if isinstance(trained, str) else str(trained.path)


def find_run(config: DictConfig) -> RunFolder:
    """Return the run that `run=` selects: a path, or the newest run of the experiment that the stage supports."""
    stages, output = RUN_STAGES[config.stage], Path(config.output_dir)
    if config.run == "latest":
        runs = [run for stage in stages for run in runs_of(output, stage, config.experiment)]
        able = [run for run in runs if run.record["status"] == "done" and is_able(run, config.stage)]
        if able:
            return max(able, key=lambda run: run.record["id"])
    return find(config.run, output, stages, config.experiment)


def to_line(prompt: Prompt, completion: str) -> str:
    """Return a line of JSON: row number, prompt or messages, completion and, if known, reference."""
    known = {} if prompt.reference is None else {"reference": prompt.reference}
    return json.dumps({**prompt.record(), "completion": completion, **known}, ensure_ascii=False) + "\n"


def write_generations(session: Session) -> None:
    """Generate greedily for `data.test_generations` test prompts of a training; write generations.jsonl and a log.

    Prompts that fill the context are left out. Nothing is written, with a warning, if transformers has no such model.
    """
    data, objective, count = session.data, session.module.objective, session.config.data.get("test_generations")
    if not count:
        return
    spec = data.spec
    try:
        model = export.exported(session.module.backbone, objective.task, objective.head, objective.output_spec(spec))
    except UserError as error:
        screen.say(f"warning: data.test_generations={count}: {error}", style="yellow")
        return
    generator = Generator(model.to(session.trainer.strategy.root_device), data.preprocessor, spec.shape[0])
    rows = Rows(data.raw_test)
    prompts = data.preprocessor.to_prompts(rows.take(evenly(len(rows), count)).x)
    starts = [(prompt, data.preprocessor.prompt(prompt.given)) for prompt in prompts]
    starts = [(prompt, start) for prompt, start in starts if len(start) < spec.shape[0]]
    completions = generator.generate([start for _, start in starts], spec.shape[0])
    lines = [to_line(prompt, completion) for (prompt, _), completion in zip(starts, completions)]
    write_atomically(session.run.path / "generations.jsonl", "".join(lines))
    session.logger.log_text("generations", "\n".join(lines))
    screen.say(f"generated for {len(lines)} of {len(rows):,} test prompts: {session.run.path / 'generations.jsonl'}")


def has_position_table(model: Any) -> bool:
    """Return whether a model of transformers has an embedding of each position."""
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    return any(name.endswith(POSITION_EMBEDDINGS) for name in tables)
