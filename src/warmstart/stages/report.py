"""stage=report: rebuild the tables and figures of a transfer or sweep from its run folders."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from warmstart.core import screen
from warmstart.report import sweep, transfer
from warmstart.report.pool import read_pool
from warmstart.run.identity import new_id
from warmstart.run.manifest import Manifest


def run(config: DictConfig) -> None:
    """Rebuild the report in the folder `runs=`, whose runs may be unfinished; a list of transfers is pooled."""
    if isinstance(config.runs, ListConfig):
        pooled = read_pool([Path(name) for name in config.runs])
        folder = Path(config.output_dir) / "report" / pooled.manifest.experiment / new_id()
        transfer.show(transfer.write_pooled_report(pooled, folder))
        screen.say(f"report: {folder / 'report.html'} and report.md, report.json, runs.csv")
        return
    folder = Path(config.runs)
    if Manifest.read(folder).stage == "transfer":
        transfer.show(transfer.write_report(folder))
        screen.say(f"report: {folder / 'report.html'} and report.md, report.json, runs.csv")
    else:
        summary = sweep.write_report(folder, show_test=config.show_test)
        sweep.show(summary)
        screen.say(f"report: {folder / 'sweep.html'} and leaderboard.csv, jobs.csv")
        screen.next_command(*sweep.next_commands(summary, folder))
