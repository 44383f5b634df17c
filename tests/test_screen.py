r"""Nothing that is printed acts upon a terminal, and a printed command means what it says, whatever is in its words."""

from __future__ import annotations

import logging
import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from warmstart.core import screen

pytestmark = pytest.mark.quick

EVIL = "a\x1b[2J\x1b]0;owned\x07b\rc\x9bd\u202ee\u2066f\u2028g\udcffh\x00i"
SHOWN = r"a\x1b[2J\x1b]0;owned\x07b\rc\x9bd\u202ee\u2066f\u2028g\udcffh\x00i"
NASTY = [
    *(
        "a b",
        "it's",
        'say "hi"',
        "\\",
        "\\\\",
        "\\'",
        "a\\\\'b",
        "größe",
        "名前",
        "a=b",
        "a,b",
        "a:b",
        "{a}",
        "[a]",
        "(a)",
    ),
    *(
        "$HOME",
        "${HOME}",
        "a${x}",
        "\\${x}",
        "a\\\\${x}\\",
        "${x",
        "$(id)",
        "`id`",
        "a;b",
        "a&b",
        "a|b",
        "<a>",
        "!x",
        "a#b",
    ),
    *("\n", "a\n", "a\nb", "\t", "a\rb", "\x1b[31m", "\u202ex", "\udcff", "\x7f", "-x", "--x", "~", "~/x", "+a", "@a"),
    *(
        "",
        " ",
        " x",
        "x ",
        "null",
        "True",
        "nan",
        "12",
        "1e5",
        "1_0",
        ".5",
        "5.",
        "*",
        "?",
        "%",
        "../x",
        "./5",
        "/tmp/x",
    ),
]


def test_what_is_printed_shows_control_characters_instead_of_sending_them(capsys: pytest.CaptureFixture):
    screen.say(EVIL)
    screen.error(f"{EVIL}\n\tsecond line")
    screen.next_command(EVIL)
    screen.table(EVIL, [EVIL], [[f"{EVIL} [red]not markup[/x] :smile:"]])
    out, err = capsys.readouterr()
    assert err == f"{SHOWN}\nerror: {SHOWN}\n        second line\nnext: {SHOWN}\n"
    assert screen.UNSAFE.search(out) is None
    assert "".join(out.split()).count(SHOWN) == 3
    assert "[red]not markup[/x] :smile:" in out


def test_a_log_record_shows_them_too():
    record = logging.LogRecord("other", logging.INFO, "", 0, "%s\n%s", (EVIL, EVIL), None)
    assert screen.LogFormatter("%(message)s").format(record) == f"{SHOWN}\n{SHOWN}"


def test_a_printed_command_gives_hydra_the_same_overrides_through_a_shell():
    draw = random.Random(0)
    made = ["".join(draw.choices("\\\\''\"${}ax,= \n\t1.-~", k=draw.randint(1, 9))) for _ in range(300)]
    names = [*NASTY, *made]
    line = screen.command("printf", r"%s\0", *(f"run={screen.quoted(name)}" for name in names))
    assert "\n" not in line
    assert screen.safe(line) == line
    printed = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.split(b"\0")[:-1]
    parser = OverridesParser.create()
    for name, word in zip(names, printed, strict=True):
        given = OmegaConf.create({"run": parser.parse_override(os.fsdecode(word)).value(), "x": 1, "a": 2}).run
        assert given == name


@pytest.mark.parametrize("name", ["a b", "it's", "a${x}", "größe", '"', "a\\"], ids=str)
def test_the_next_run_is_printed_in_words_that_a_shell_splits(name: str, capsys: pytest.CaptureFixture):
    screen.next_run(f"run={screen.quoted(Path(name))}")
    _, line = capsys.readouterr()
    words = shlex.split(line.removeprefix("next: "))
    assert words[:2] == ["python", "train.py"]
    assert OmegaConf.create({"run": OverridesParser.create().parse_override(words[2]).value()}).run == name
