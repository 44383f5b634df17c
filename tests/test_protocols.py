"""Components have the capabilities that they declare."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from hydra.utils import get_object
from omegaconf import OmegaConf

from warmstart.core.protocols import Objective, Strategy
from warmstart.data import preprocess

CONF = Path(__file__).parents[1] / "conf"
OF_OBJECTIVES = ("pictures", "examples", "load_head", "tagged")
OF_PREPROCESSORS = ("fill_columns", "untruncated", "decode", "locate", "to_images", "overlap")


def chosen(group: str) -> list[type]:
    return [get_object(OmegaConf.load(path)._target_) for path in sorted((CONF / group).glob("*.yaml"))]


def test_abilities_are_the_methods_that_there_are():
    modules = [
        importlib.import_module(f"{preprocess.__name__}.{m.name}") for m in pkgutil.iter_modules(preprocess.__path__)
    ]
    preprocessors = [module.Preprocessor for module in modules if hasattr(module, "Preprocessor")]
    for kinds, methods in ((chosen("objective"), OF_OBJECTIVES), (preprocessors, OF_PREPROCESSORS)):
        for kind in kinds:
            assert {name for name in methods if hasattr(kind, name)} == kind.abilities & {*methods}, kind


def test_an_objective_with_a_monitor_predicts():
    for kind in chosen("objective"):
        methods = (kind.predict is not Objective.predict, kind.to_records is not Objective.to_records)
        assert set(methods) == {kind.monitor is not None}, kind


def test_a_strategy_says_whether_it_only_claims():
    for kind in chosen("strategy"):
        own = [
            name
            for name in ("prepare", "step", "extract_adapters")
            if getattr(kind, name) is not getattr(Strategy, name)
        ]
        assert kind.only_scales_learning_rates == (not own), kind
