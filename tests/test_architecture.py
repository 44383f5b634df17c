"""Import order, naming, and independence of stages and training from the modality."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.quick

SRC = Path(__file__).parents[1] / "src" / "warmstart"
FILES = sorted(SRC.rglob("*.py"))

# What each package may import besides itself, lazily or by name too.
ALLOWED = {
    "core": set(),
    "distributed": {"core"},
    "loss": {"core"},
    "backbone": {"core"},
    "strategy": {"core", "distributed"},
    "average": {"core"},
    "huggingface": {"core", "backbone"},
    "run": {"core", "distributed", "huggingface"},
    "data": {"core", "distributed", "run"},
    "baseline": {"core", "data"},
    "config": {"core", "run", "huggingface", "data"},
    "objective": {"core", "distributed", "data", "loss"},
    "training": {"core", "distributed", "config", "data", "run", "huggingface"},
    "report": {"core", "run"},
    "sweep": {"core", "config", "data", "huggingface", "run", "report"},
    "vmap": {"core", "data", "run", "training"},
    "selection": {"core", "config", "data", "run", "strategy", "training", "report", "sweep"},
    "transfer": {"core", "config", "data", "run", "huggingface", "strategy", "training", "report", "selection"},
    "soup": {"core", "config", "run", "huggingface", "training"},
}
TOP = ("stages", "extend", "main", "process", "resume", "__init__")  # may import everything below; nothing imports them
TORCH = {"torch", "pytorch_lightning", "torchmetrics", "safetensors"}
TORCH_FREE = (
    "core",
    "config",
    "distributed/environment.py",
    "main.py",
    "resume.py",
    "stages/runner.py",
    "report",
    *(f"run/{name}.py" for name in ("checksums", "cores", "files", "folder", "identity", "lineage", "lock", "log")),
    "run/manifest.py",
    "data/schema.py",
    "data/sources/table",
    *(f"data/readers/{name}.py" for name in ("arrow", "columns", "files", "folders", "library", "records", "table")),
)
IN_A_FUNCTION = ("run/cores.py",)  # of these: imports torch, but not when it is imported
PROBED = (  # what may be asked for its attributes: objects of other libraries
    "huggingface",
    "data/readers",
    "core/batch.py",  # a frame of pandas
    "config/signature.py",  # a partial
    "data/storage/images.py",  # the operating system
    "run/cores.py",
    "sweep/study.py",  # a distribution of optuna
)
CHANGE = re.compile(r"open_dict|read_write|OmegaConf\.(update|(unsafe_)?merge|set_(struct|readonly))|.+\.merge_with")
CONFIG = re.compile(r"(\w+\.)?(config|cfg)\b[.\[]")  # what one is called
MODALITIES = {"image", "vector", "text", "speech", "audio", "pixel", "token"}


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
        elif called and isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= set(re.findall(r"warmstart\.\w+", ast.unparse(node.args[0])))
    return found


def package_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def wrong_imports() -> Iterator[str]:
    for path in FILES:
        package = package_of(path)
        if package not in TOP:
            others = {name.split(".")[1] for name in imports(path) if name.startswith("warmstart.")} - {package}
            yield from (f"{path.relative_to(SRC)} imports {other}" for other in sorted(others - ALLOWED[package]))


def test_imports_point_one_way():
    assert list(wrong_imports()) == []
    order = list(ALLOWED)
    assert all(order.index(below) < order.index(package) for package, found in ALLOWED.items() for below in found)


def test_what_must_be_quick_does_not_import_torch():
    for path in FILES:
        where = str(path.relative_to(SRC))
        if where.startswith(TORCH_FREE):
            heavy = {name.split(".")[0] for name in imports(path, where not in IN_A_FUNCTION)}
            assert not heavy & TORCH, where


def test_components_declare_what_they_can_and_are_not_probed_for_it():
    for path in FILES:
        where = str(path.relative_to(SRC))
        assert where.startswith(PROBED) or "hasattr(" not in path.read_text(), f"{where}: see core/protocols.py"


def changes_of_configs(path: Path) -> Iterator[int]:
    """The lines of a file that change a config: by a function of OmegaConf, by assignment or by deletion."""
    tree = ast.parse(path.read_text())
    if not any(name.startswith("omegaconf.") for name in imports(path)):
        return
    for node in ast.walk(tree):
        is_target = isinstance(getattr(node, "ctx", None), (ast.Store, ast.Del)) and not isinstance(node, ast.Name)
        is_named = isinstance(node, (ast.Name, ast.Attribute)) and CHANGE.fullmatch(ast.unparse(node))
        if is_named or (is_target and CONFIG.match(ast.unparse(node))):
            yield node.lineno


def test_configs_are_changed_in_one_package():
    found = [(str(path.relative_to(SRC)), line) for path in FILES for line in changes_of_configs(path)]
    assert {path for path, _ in found} == {"config/rewrite.py"}, found


def test_a_change_of_a_config_is_found(tmp_path: Path):
    bad = tmp_path / "bad.py"
    lines = ["OmegaConf.merge(a, b)", "config.seed = 1", "config['seed'] = 1", "del config.seed", "job.config.a.b += 1"]
    bad.write_text("\n".join(["from omegaconf import OmegaConf", *lines, "configs = config.seed"]))
    assert sorted(changes_of_configs(bad)) == [2, 3, 4, 5, 6]


def test_no_file_is_a_drawer():
    assert not {path.stem for path in FILES} & {"utils", "misc", "common", "helpers"}


def test_training_stages_and_what_is_above_know_no_modality():
    for path in FILES:
        is_drawn = path.parent.name == "visualization"  # images and audio
        if package_of(path) in {"training", "stages", "run", "transfer", "selection", "soup", "vmap"} and not is_drawn:
            names = {
                node.value if isinstance(node, ast.Constant) else node.id
                for node in ast.walk(ast.parse(path.read_text()))
                if (isinstance(node, ast.Constant) and isinstance(node.value, str)) or isinstance(node, ast.Name)
            }
            assert not names & MODALITIES, f"{path.relative_to(SRC)} names {names & MODALITIES}"


def test_an_import_is_found_at_any_position(tmp_path: Path):
    bad = tmp_path / "bad.py"
    bad.write_text(
        "def f(name):\n    from warmstart.backbone.mlp import MLP\n"
        "    return MLP, importlib.import_module(f'warmstart.stages.{name}')\n"
    )
    assert imports(bad) == {"warmstart.backbone.mlp.MLP", "warmstart.stages"}
