"""Imports point one way, names say what they hold, and no stage or module knows a modality."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src" / "warmstart"
FILES = sorted(SRC.rglob("*.py"))

# What each part of the house may import from warmstart, besides itself.
GROUND = {"contracts", "ranges", "screen", "reading"}
ALLOWED = {
    "contracts": set(),
    "ranges": set(),
    "screen": set(),
    "reading": {"screen"},
    "data": GROUND | {"run"},
    "loss": GROUND,
    "backbone": GROUND,
    "strategy": GROUND,
    "average": GROUND,
    "run": GROUND,
    "objective": GROUND | {"loss"},
    "module": GROUND,
    "trainer": GROUND | {"run"},
    "report": GROUND | {"run"},
    "settings": {"ranges"},
    "check": GROUND | {"settings"},
    "sweep": GROUND | {"check", "run", "report", "data"},
    "stage": GROUND | {"check", "data", "run", "objective", "module", "trainer", "report", "sweep"},
    "resume": GROUND | {"settings", "run"},
    "main": GROUND | {"check", "run", "data"},
}
TORCH_FREE = (
    "contracts.py",
    "ranges.py",
    "settings.py",
    "check.py",
    "screen.py",
    "reading.py",
    "main.py",
    "resume.py",
    "report",
    "run/checksums.py",
    "run/cores.py",
    "run/files.py",
    "run/folder.py",
    "run/identity.py",
    "run/lineage.py",
    "run/lock.py",
    "run/log.py",
    "run/manifest.py",
    "run/trust.py",
    "data/schema.py",
    "data/table.py",
    "data/readers",
)
IN_A_FUNCTION = ("run/cores.py",)  # of these: imports torch, but not when it is imported


def imports(path: Path, called: bool = True) -> set[str]:
    """Absolute names of what a file imports when it is loaded or, `called`, its functions are; no type checking."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree) if called else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_imports_point_one_way(path: Path):
    part = part_of(path)
    if part == "__init__":
        return
    others = {name.split(".")[1] for name in imports(path) if name.startswith("warmstart.")} - {part}
    assert others <= ALLOWED[part], f"{path} imports {others - ALLOWED[part]}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_what_must_be_quick_does_not_import_torch(path: Path):
    where = str(path.relative_to(SRC))
    if where.startswith(TORCH_FREE):
        heavy = {name.split(".")[0] for name in imports(path, where not in IN_A_FUNCTION)}
        assert not heavy & {"torch", "pytorch_lightning", "torchmetrics", "safetensors"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SRC)))
def test_a_file_is_one_idea_under_a_telling_name(path: Path):
    assert path.stem not in {"utils", "misc", "common", "helpers"}
    assert len(path.read_text().splitlines()) <= 300


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) in {"module", "stage"}], ids=lambda path: path.stem)
def test_modules_and_stages_know_no_modality(path: Path):
    words = {"image", "vector", "text", "speech", "audio", "pixel", "token"}
    names = {
        node.value if isinstance(node, ast.Constant) else node.id
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Constant) and isinstance(node.value, str)) or isinstance(node, ast.Name)
    }
    assert not names & words


def test_a_sibling_is_found_when_it_imports_another(tmp_path: Path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from warmstart.backbone.mlp import MLP\n    return MLP\n")
    assert "warmstart.backbone.mlp.MLP" in imports(bad)
