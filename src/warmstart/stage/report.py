"""stage=report: rebuild the tables and the figure of a transfer from its run folders."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from warmstart import screen
from warmstart.report.transfer import show, write_report


def run(config: DictConfig) -> None:
    """Rebuild report.json, report.md and report.png in the folder that `runs=` names."""
    folder = Path(config.runs)
    show(write_report(folder))
    screen.say(f"report: {folder / 'report.md'} and report.png, report.json")
