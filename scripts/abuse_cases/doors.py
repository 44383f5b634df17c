"""Commands in this process: a composed config and its data, or the complete stage."""

from __future__ import annotations

import contextlib
import io
import json
import os
import traceback
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from scripts.abuse_cases.case import Case, Seen

from warmstart import main
from warmstart.config.expand import expand
from warmstart.config.validate import check, explain
from warmstart.core.errors import UserError

MISTAKES = (UserError, HydraException, OmegaConfBaseException)


class Bench:
    """Runs cases below one folder; what other cases are compared with, or predict with, runs once."""

    def __init__(self, folder: Path):
        self.folder, self.done, self.places = folder, {}, {}
        os.environ["WARMSTART_CACHE"] = str(folder / "cache")

    def seen(self, case: Case) -> Seen:
        """What a case's command does; the files are written first."""
        if id(case) not in self.done:
            place = self.folder / f"case{len(self.done)}"
            self.done[id(case)] = Seen()
            self.places[id(case)] = place
            case.write(place)
            self.done[id(case)] = self._called(case, place)
        return self.done[id(case)]

    def judge(self, case: Case) -> tuple[str, str]:
        """The kind of a case's outcome, and what is wrong with a defect."""
        return case.judge(self.seen(case), self.seen)

    def _called(self, case: Case, place: Path) -> Seen:
        words = [word.replace("{folder}", str(place)) for word in case.words]
        if case.beside is not None:
            self.seen(case.beside)
        first = case
        while first.beside is not None:
            first = first.beside
        outputs = self.places[id(first)] / "outputs"
        words.append(f"output_dir={outputs}")
        if case.model is not None:
            model = self.seen(case.model)
            if model.run is None:
                return Seen(crash=f"the model to predict with is not there: {model.refusal or model.crash}")
            words.append(f"run={model.run}")
        seen, printed, results = Seen(), io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(results), contextlib.redirect_stderr(printed):
            try:
                with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
                    config = compose("train", overrides=expand(words))
                    (self._load if case.door == "load" else self._run)(config, seen)
            except InstantiationException:
                seen.crash = traceback.format_exc().strip().splitlines()[-1]
            except MISTAKES as error:
                seen.refusal = explain(error)
            except Exception:
                seen.crash = " / ".join(traceback.format_exc().strip().splitlines()[-3:])
        seen.text = printed.getvalue()
        if case.door == "run":
            self._ended(seen, results.getvalue(), outputs)
        return seen

    def _load(self, config: DictConfig, seen: Seen) -> None:
        """Load, fit and encode the data of a finetuning or pretraining config, as the stage does."""
        from hydra.utils import get_object

        from warmstart.training import components

        config = OmegaConf.masked_copy(config, [key for key in config if key not in ("sweep", "resume", "extend")])
        check(config)
        source = components.build_source(config)
        seen.splits = source.load(get_object(config.objective._target_).target)
        data = components.task_data if config.stage == "finetune" else components.generic_data
        seen.data = data(config, source=source).prepare(seen.splits)

    def _run(self, config: DictConfig, seen: Seen) -> None:
        """Run the complete stage."""
        seen.status = main.run(config, typed=True)

    def _ended(self, seen: Seen, results: str, outputs: Path) -> None:
        status = seen.status
        before, _, message = seen.text.rpartition("error: ")
        if status == main.USER_ERROR:
            seen.text, seen.refusal = before, message.strip()
        elif status:
            seen.crash = " / ".join(seen.text.strip().splitlines()[-3:])
        elif status == 0:
            seen.run = max((path.parent for path in outputs.glob("*/*/*/run.json")), key=lambda path: path.name)
            if seen.run.parents[1].name == "predict":
                seen.answers = [json.loads(line) for line in results.splitlines()]
