"""The command line: imports, exit status, and output folders."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from tests.conftest import FAST, Outcome
from warmstart import main
from warmstart.core import screen

ROOT = Path(__file__).parents[1]


def train(*words: str, cwd: Path = ROOT, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *flags, str(ROOT / "train.py"), *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("words", "status"),
    [(("--cfg", "job"), 0), (("--help",), 0), (("stage=nope",), 2), (("optimizer.lr=-1",), 2), (("loss=null",), 2)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_torch_is_not_imported_to_show_a_config_or_refuse_one(words: tuple[str, ...], status: int, tmp_path: Path):
    done = train(*words, cwd=tmp_path, flags=("-X", "importtime"))
    assert done.returncode == status, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "hydra" in imported
    assert not {"torch", "pytorch_lightning", "torchmetrics", "sklearn", "pandas"} & imported
    assert not list(tmp_path.iterdir())


def test_shown_config_is_the_one_that_runs():
    done = train("stage=finetune", "loss=focal", "--cfg", "job", "--resolve")
    assert "warmstart.loss.focal.focal" in done.stdout


def test_an_interrupted_run_prints_it_exits_with_130_and_can_be_resumed(tmp_path: Path):
    words = ["stage=pretrain", f"output_dir={tmp_path}", "visualization=[]", "trainer.check_val_every_n_epoch=1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, "trainer.max_epochs=100000"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("pretrain/digits/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (path,) = tmp_path.glob("pretrain/digits/*/run.json")
    assert json.loads(path.read_text())["status"] == "interrupted"


def test_an_interrupt_that_ends_in_another_error_is_an_interrupt(capsys: pytest.CaptureFixture):
    """As when a signal arrives in a `with` block of OmegaConf, whose exit then fails."""
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            [].pop()
    except IndexError as cause:
        error = ConfigCompositionException()
        error.__cause__ = cause
    assert main.report(error) == 130
    assert capsys.readouterr().err == "error: interrupted\n"
    assert main.report(ConfigCompositionException("no such option")) == 2


def test_a_config_folder_of_ones_own_is_added(command: Callable[..., Outcome], tmp_path: Path):
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "rmsprop.yaml").write_text("_target_: torch.optim.RMSprop\nlr: 0.001\n")
    words = ("stage=finetune", "init=scratch", "optimizer=rmsprop", *FAST)
    done = command("--config-dir", str(tmp_path / "mine"), *words)
    assert done.status == 0, done.err
    assert "torch.optim.RMSprop" in (done.run("finetune") / "config.yaml").read_text()


def test_predictions_alone_go_to_standard_output(cli: Callable[..., Outcome], tmp_path: Path):
    run = cli("stage=finetune", "init=scratch", *FAST).run("finetune")
    (tmp_path / "new.csv").write_text("\n".join([",".join(["3"] * 64)] * 2) + "\n")
    done = train("stage=predict", f"run={run}", f"input={tmp_path / 'new.csv'}", f"output_dir={tmp_path}")
    assert [json.loads(line)["row"] for line in done.stdout.splitlines()] == [1, 2]


def test_the_command_that_a_pretraining_prints_runs_as_it_is_pasted(command: Callable[..., Outcome], tmp_path: Path):
    folder = tmp_path / "my files (1), it's mine"
    folder.mkdir()
    rows = (f"{n}^{'n.a., see note' if n == 9 else n % 5}^{'xy'[n % 2]}\n" for n in range(40))
    (folder / "a b.csv").write_text("a^b^kind\n" + "".join(rows))
    settings = (
        f"data.root={screen.quoted(folder / 'a b.csv')}",
        "data.target=kind",
        "data.separator='^'",
        "data.missing_values=[-999, 'n.a., see note']",
        "data.missing=mean",
    )
    outputs = screen.quoted(folder / "outputs")
    done = command("stage=pretrain", "experiment=table", *settings, "trainer.max_epochs=1", output_dir=outputs)
    assert done.status == 0, done.err
    (line,) = (line for line in done.err.splitlines() if line.startswith("next: python train.py stage=finetune"))
    words = shlex.split(line)[3:]
    assert set(words) >= set(settings)
    again = command(*words, "trainer.max_epochs=1")
    assert again.status == 0, again.err


def test_no_chatter_of_the_libraries_reaches_the_user(tmp_path: Path):
    done = train("stage=finetune", "init=scratch", f"output_dir={tmp_path}", "trainer.max_epochs=1")
    for word in ("Warning", "warn", "GPU available", "num_workers", "litlogger", "Tip", "LOCAL_RANK"):
        assert word not in done.stderr + done.stdout
    assert "next: python train.py stage=evaluate" in done.stderr
    assert "run folder: " in done.stderr
