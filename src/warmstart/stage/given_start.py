"""A transfer that starts from weights which are there already, and so needs no pretraining of its own."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from warmstart.contracts import UserError
from warmstart.run.hub import RANDOM, SHUFFLED
from warmstart.run.hub_folder import HUB
from warmstart.stage.arms import start_setting
from warmstart.stage.start import find_start, given_preprocessor

OWN = "pretrained"  # what an arm's `init`, and transfer.start, call the transfer's own pretraining


def with_start(config: DictConfig) -> DictConfig:
    """The config with what transfer.start names in the place of `pretrained` and `shuffled` in every arm.

    From a Hugging Face model, `scratch` is its architecture with random weights, in arms without a backbone of their
    own: else the two would differ in more than their weights.

    Raises:
        UserError: transfer.start is neither of these nor a folder.
    """
    start = str(config.transfer.start)
    if start == OWN:
        return config
    is_hub = start.startswith(HUB)
    if not is_hub and not Path(start).is_dir():
        raise UserError(
            f"transfer.start={start}: there is no such folder; give {OWN}, a run folder, or {HUB}NAME_OR_DIR"
        )
    if not is_hub:
        start = str(Path(start).resolve())
    changed = config.copy()
    for arm in changed.arm.values():
        inits = {OWN: start, "shuffled": SHUFFLED + start}
        if is_hub and "backbone" not in arm:
            inits["scratch"] = RANDOM + start
        if "init" in arm:
            arm.init = inits.get(arm.init, arm.init)
        if arm.get("preprocessor") == OWN:
            arm.preprocessor = None if is_hub else start
    return changed


def check_starts(config: DictConfig, arm: str, own: DictConfig) -> None:
    """Open what an arm starts from, and its preprocessor, where these are not of the transfer's own pretraining.

    Args:
        config: a composed transfer config.
        arm: its name.
        own: its config, in which `init` stands for what the transfer pretrains.

    Raises:
        UserError: one is missing, damaged or not of this backbone; names the setting.
    """
    init, preprocessor = own.init, config.arm[arm].get("preprocessor")
    setting = start_setting(config, arm, init)
    try:
        start, _ = find_start(own)
        if preprocessor not in (None, OWN):
            setting = f"arm.{arm}.preprocessor={preprocessor}"
            given_preprocessor(OmegaConf.merge(own, {"init": "scratch", "preprocessor": preprocessor}), None)
        else:
            given_preprocessor(own, start)
    except UserError as error:
        raise UserError(f"{setting}: {str(error).removeprefix(f'init={init}: ')}") from error
