"""The commands of README.md, the pages of docs/ and examples/*.sh are run, each page's in order, in a small setting.

A command is a line that begins with `python train.py`, on a page in a fenced block of bash. A comment such as
`<!-- not run: needs a model of the hub -->` before a block has its commands composed only. A transfer that several
pages show is run once. The Python code of a script is run as it is."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import soundfile
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.conftest import FAST
from tests.huggingface.decoder import saved_decoder
from tests.huggingface.encoder_decoder import saved_encoder_decoder
from tests.huggingface.test_text import saved_folder
from tests.huggingface.tiny_whisper import saved_whisper

from warmstart.config.expand import expand
from warmstart.config.validate import check
from warmstart.data.sources.audio.spoken_digits import read_packaged
from warmstart.report import figure

ROOT = Path(__file__).parents[2]
GENERATED = ("reference/config/", "reference/api/")
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?```bash\n(?P<lines>.*?)^```", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"^python - <<'PYTHON'\n(.*?)^PYTHON\n", re.DOTALL | re.MULTILINE)  # in a script
SEVERAL = re.compile(r"[^\[({',]+(,[^\[({',]+)+")  # of a sweep: values of a setting
# What makes a command small, by its stage, experiment or one of its words. It replaces the page's own settings.
STAGES = {
    "pretrain": (*FAST, "debug=one_batch", "feature_rows=0"),
    "finetune": (*FAST, "debug=one_batch"),
    "transfer": (
        *("trainer.max_steps=2", "trainer.val_check_interval=2", "data.batch_size=8", "hydra.launcher.workers=0"),
        *("transfer.labels=[2]", "transfer.seeds=1", "transfer.budgets.converged=[]", "transfer.tune=0"),
        *("trainer.limit_val_batches=1", "trainer.limit_test_batches=1"),
        *(f"pretrain.{word}" for word in (*FAST[1:], "trainer.limit_train_batches=2", "feature_rows=0")),
        *("visualization@pretrain.visualization=[]", "pretrain.trainer.limit_val_batches=1"),
    ),
}
TEXT = ("backbone=tiny", "data.tokenizer.vocabulary=200", "data.tokenizer.context=32")
SPEECH = ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "backbone.stem.channels=4")
EXPERIMENTS = {
    "text": TEXT,
    "ner": TEXT,
    "shakespeare": ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "data.batch_size=2"),
    "chat": ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "data.batch_size=2"),
    "preferences": ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "data.batch_size=2"),
    "speech": (*SPEECH, "data.test_clusters=[george,jackson,lucas,nicolas]"),
    "recordings": SPEECH,
    "seq2seq": ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "data.batch_size=2"),
    "transcribe": ("data.batch_size=2",),
    "images": ("data.size=16", "backbone.widths=[8]", "backbone.blocks=[1]"),
}
WORDS = {
    "-m": ("hydra.launcher.workers=0", "sweep.preflight=false"),
    "backbone=resnet": ("backbone.widths=[4]", "backbone.blocks=[1]"),
    "sweep=optuna": ("sweep.trials=2", "sweep.seeds=1"),
    "sweep=loss_lr_epochs": ("optimizer.lr=0.01", "seed=0"),
    "transfer.start=hf:models/decoder": ("transfer.labels=[all]",),
    "transfer.starts=[hf:models/t5]": ("transfer.labels=[all]", "objective.length=4"),
    "transfer.starts=[hf:models/whisper]": ("transfer.labels=[all]", "objective.length=2"),
    "experiment=transfer_conflict": ("pretrain.snapshots=1",),
    "transfer=full": ("pretrain.snapshots=1", "transfer.budgets.steps=[pretrained]", "transfer.budgets.total=[]"),
}


class Command(NamedTuple):
    """A command of a page, and why it is not run."""

    words: tuple[str, ...]
    reason: str | None


def lines(text: str) -> list[list[str]]:
    """The lines of shell code in words, without comments."""
    found = [shlex.split(line, comments=True) for line in text.replace("\\\n", " ").splitlines()]
    return [words for words in found if words]


def commands(text: str) -> list[Command]:
    """The commands of a page, in order."""
    return [
        Command(tuple(words[2:]), block["reason"])
        for block in BLOCK.finditer(text)
        for words in lines(block["lines"])
        if words[:2] == ["python", "train.py"]
    ]


@functools.cache
def pages() -> list[str]:
    """README.md and the pages that show commands, generated ones left out."""
    names = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]
    kept = [name for name in names if not name.startswith(tuple(f"docs/{part}" for part in GENERATED))]
    return [name for name in kept if read(name)]


@functools.cache
def read(page: str) -> list[Command]:
    """The commands of a page by its path."""
    return commands((ROOT / page).read_text())


def is_elsewhere(words: tuple[str, ...], page: str) -> bool:
    """Whether a command is a transfer that an earlier page shows."""
    is_alone = setting(words, "stage", "transfer") == "transfer" and not any(word.startswith("-") for word in words)
    earlier = pages()[: pages().index(page)] if is_alone else []
    return any(words == command.words for name in earlier for command in read(name))


def houses(path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"rooms": rng.integers(1, 7, 60), "area": rng.normal(90, 20, 60).round(1)})
    frame["city"] = rng.choice(["Bern", "Basel"], 60)
    frame["price"] = (frame.area * 4000).round()
    frame["sold"] = np.where(rng.random(60) < 0.5, "yes", "no")
    frame.to_csv(path, index=False)


def reviews(path: Path) -> None:
    words = {"good": ["warm", "clever", "fine"], "bad": ["dull", "stale", "cold"]}
    rng = np.random.default_rng(0)
    titles = ["".join(letters) for letters in rng.choice([*"abcdefghijklmnopqrstuvwxyz"], (120, 4))]
    rows = [
        (label, " ".join(["the", "film", title, "was", *rng.choice(words[label], 4)]))
        for label, title in zip([*words] * 60, titles)
    ]
    pd.DataFrame({"text": [text for _, text in rows], "label": [label for label, _ in rows]}).to_csv(path, index=False)


def notes(path: Path) -> None:
    path.mkdir()
    for number in range(12):
        (path / f"{number}.txt").write_text("the film was warm and clever\n" * 20)


def news(path: Path) -> None:
    path.mkdir()
    for number, name in enumerate(("train", "dev", "test")):
        sentences = [
            f"Ada NNP B-PER\nBrook NNP I-PER\nleft VBD O\ntown{n} NN O\n\n" for n in range(9 * number, 9 * number + 9)
        ]
        (path / f"{name}.txt").write_text("-DOCSTART- -X- O\n\n" + "".join(sentences))


def chats(path: Path) -> None:
    asked = [(word, size) for word in ("warm", "cold", "good", "bad", "old") for size in range(6)]
    rows = [
        [
            {"role": "user", "content": f"Opposite of {word}, number {size}?"},
            {"role": "assistant", "content": f"un{word}"},
        ]
        for word, size in asked
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))


def pairs(path: Path) -> None:
    rows = [
        {"prompt": f"Opposite of {word}, number {size}?", "chosen": f"un{word}", "rejected": "I do not know."}
        for word in ("warm", "cold", "good", "bad", "old")
        for size in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def ratings(path: Path) -> None:
    rows = [
        {
            "prompt": f"Opposite of {word}, number {size}?",
            "completion": f"un{word}" if size % 2 else "?",
            "label": size % 2 == 1,
        }
        for word in ("warm", "cold", "good", "bad", "old")
        for size in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(90):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)


def photo_table(path: Path) -> None:
    photos(path.with_suffix(""))
    rows = sorted(path.with_suffix("").rglob("*.png"))
    table = {"img": [str(row.relative_to(path.parent)) for row in rows], "target": [row.parent.name for row in rows]}
    pd.DataFrame(table).rename(columns={"target": "label"}).to_csv(path, index=False)


def recordings(folder: Path) -> None:
    table, rows = read_packaged(), []
    for row in table[table.text.isin(["one", "six"]) & (table.recording < 4)].itertuples():
        path = folder / {"one": "yes", "six": "no"}[row.text] / f"{row.speaker}{row.recording}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, row.audio, row.rate)
        rows.append({"path": str(path.relative_to(folder.parent)), "label": path.parent.name, "text": row.text})
    soundfile.write(folder / "yes" / "1.wav", row.audio, row.rate)
    pd.DataFrame(rows).to_csv(folder.parent / "manifest.csv", index=False)


def documents(path: Path) -> None:
    """Write a table of documents with summaries."""
    rows = [
        (f"the {size} king has {count} ships", f"{count} ships") for size in ("old", "new", "big") for count in range(8)
    ]
    pd.DataFrame(rows, columns=["document", "summary"]).to_csv(path, index=False)


def questions(path: Path) -> None:
    """Write questions in the format of SQuAD about texts with one answer each."""
    articles = [
        {
            "title": name,
            "paragraphs": [
                {
                    "context": f"{name} lives in a house.",
                    "qas": [{"question": "Who lives there?", "answers": [{"text": name, "answer_start": 0}]}],
                }
            ],
        }
        for name in ("Ada", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")
    ]
    path.write_text(json.dumps({"data": articles}))


FILES: dict[str, Callable[[Path], object]] = {
    "houses.csv": houses,
    "new_houses.csv": houses,
    "reviews.csv": reviews,
    "mails.csv": reviews,
    "lines.txt": lambda path: path.write_text("a warm film\na dull film\n"),
    "notes": notes,
    "news": news,
    "photos": photos,
    "new_photos": photos,
    "photos.csv": photo_table,
    "recordings": recordings,
    "models/encoder": lambda path: saved_folder(path, "bert"),
    "chats.jsonl": chats,
    "pairs.jsonl": pairs,
    "ratings.jsonl": ratings,
    "models/decoder": lambda path: saved_decoder(path, 512),
    "pairs.csv": documents,
    "documents.txt": lambda path: path.write_text("a warm film\na dull film\n"),
    "models/t5": lambda path: saved_encoder_decoder(path, "t5"),
    "questions.json": questions,
    "models/whisper": lambda path: saved_whisper(path),
}


def placed(word: str) -> str:
    """A word with ID as the newest folder that there is."""
    before, found, after = word.partition("/ID")
    if not found:
        return word
    name, _, folder = before.rpartition("=")
    return f"{name}={max(Path(folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)}{after}"


def setting(words: tuple[str, ...], name: str, default: str = "") -> str:
    """The value of a setting among words."""
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), default)


def small(words: tuple[str, ...]) -> list[str]:
    """The words in a small setting: of a sweep, two values of one setting; and what the tables above say."""
    if any("resume=" in word for word in words):
        return [*words, "hydra.launcher.workers=0"]
    stage = setting(words, "stage", "finetune" if "-m" in words else "transfer")
    added = [word for given in words for word in WORDS.get(given, ())]
    if stage in STAGES:
        own = EXPERIMENTS.get(setting(words, "experiment"), ())
        is_foreign = any("hf:" in word for word in words)  # its backbone and its vocabulary are those of the model
        omitted = ("backbone", "data.tokenizer.vocabulary") if is_foreign else ()
        omitted += ("data.tokenizer", "data.test_clusters") if setting(words, "data") else ()
        omitted += tuple(word for word in SPEECH if "backbone=resnet" in words)
        added += [*STAGES[stage], *(word for word in own if not word.startswith(omitted))]
    if stage == "transfer" and not setting(words, "transfer.arms"):
        added.append("transfer.arms=[pretrained,scratch]")
    added = list({word.partition("=")[0]: word for word in reversed(added)}.values())
    keys = {word.partition("=")[0] for word in added}
    kept = [word for word in words if word.lstrip("+").partition("=")[0] not in keys]
    flags_first = sorted([*kept, *added], key=lambda word: "=" in word)
    if "-m" not in words:
        return flags_first
    several = [word for word in flags_first if one(word) != word]
    return [few(word) if word in several[:1] else one(word) for word in flags_first]


def few(word: str) -> str:
    """A word with at most two values."""
    name, _, value = word.partition("=")
    return f"{name}={','.join(value.split(',')[:2])}" if SEVERAL.fullmatch(value) else word


def one(word: str) -> str:
    """A word with the first of its values."""
    name, _, value = word.partition("=")
    return f"{name}={value.split(',')[0]}" if SEVERAL.fullmatch(value) else word


def check_composed(config: DictConfig) -> None:
    """Check a composed config as that of a single run."""
    check(OmegaConf.masked_copy(config, [key for key in config if key not in ("sweep", "resume", "extend")]))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path_factory.getbasetemp() / "pages"))


@pytest.mark.parametrize("page", pages())
def test_the_commands_of_a_page(page: str, cli, command, composed, monkeypatch: pytest.MonkeyPatch):
    if page != "docs/get_started.md":  # figures take most of the time of a transfer this small: draw those of one
        monkeypatch.setattr(figure, "draw", lambda *painted, **options: b"<svg></svg>")
    text = (ROOT / page).read_text()
    for name, write in FILES.items():
        if re.search(rf"[=:]{re.escape(name)}\b", text):
            Path(name).parent.mkdir(exist_ok=True)
            write(Path(name))
    for words, reason in commands(text):
        if is_elsewhere(words, page):
            continue
        if reason is not None:
            plain = [one(word) for word in words if "interval(" not in word and word != "-m"]
            if not any("resume=" in word for word in plain):
                check_composed(composed(*expand(plain)))
            continue
        words = tuple(map(placed, words))
        run = command if any(word.startswith("-") for word in words) else cli
        outcome = run(*small(words), output_dir=Path("outputs"))
        assert outcome.status == 0, f"python train.py {' '.join(words)}\n{outcome.err}"


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.sh")), ids=lambda path: path.name)
def test_an_example(path: Path, cli, composed):
    start, *rest = CODE.split(path.read_text())
    assert lines(start) == [["set", "-e"], ["cd", "$(dirname $0)/.."]]
    for code, shell in zip(rest[::2], rest[1::2]):
        exec(compile(code, path, "exec"), {})
        for words in lines(shell):
            assert words[:2] == ["python", "train.py"]
            if "stage=transfer" in words:  # takes the longest; those of the pages are run
                check_composed(composed(*words[2:]))
                continue
            outcome = cli(*small(tuple(words[2:])), output_dir=Path("outputs"))
            assert outcome.status == 0, f"{' '.join(words)}\n{outcome.err}"


def test_both_readmes_show_the_same_commands_links_and_pictures():
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
    shown = re.compile(r"^```bash\n.*?^```|^    .+?$", re.DOTALL | re.MULTILINE)
    assert [lines(code) for code in shown.findall(english)] == [lines(code) for code in shown.findall(chinese)]
    links = [set(re.findall(r"\]\(([^)]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {"README.zh.md"} == links[1] - {"README.md"}
    assert [link for link in links[0] | links[1] if not (ROOT / link).exists()] == []


def test_commands_are_found_in_blocks_of_bash_alone():
    text = """
    python train.py a=1
```bash
make demo
python train.py b=2 \\
  c='x y'   # why
```
<!-- not run: needs a download -->
```bash
python train.py d=3
```
```yaml
python train.py e=4
```
"""
    assert commands(text) == [Command(("b=2", "c=x y"), None), Command(("d=3",), "needs a download")]
