"""The documentation site is built without a warning, and its reference has every setting and every public function."""

from __future__ import annotations

import importlib
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from sphinx.application import Sphinx

from warmstart.main import CONF

DOCS = Path(__file__).parents[2] / "docs"
GENERATED = ("config", "api")  # folders of docs/reference


@pytest.fixture(scope="module")
def extension() -> Iterator[ModuleType]:
    """The extension that writes the pages of config groups."""
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("config_reference")
    sys.path.remove(str(DOCS))


def test_every_page_is_reached_and_every_link_and_picture_is_there(tmp_path: Path):
    source = tmp_path / "docs"
    shutil.copytree(DOCS, source, ignore=shutil.ignore_patterns(*GENERATED))
    printed = io.StringIO()
    changes = {  # the pages of packages, which hold no links, take most of the time
        "exclude_patterns": ["reference/api/warmstart*"],
        "suppress_warnings": ["ref.python", "toc.excluded"],
    }
    folders = (str(source), str(source), str(tmp_path / "out"), str(tmp_path / "trees"))
    app = Sphinx(*folders, "dummy", changes, status=None, warning=printed)
    app.build()
    assert printed.getvalue() == ""
    assert {path.stem for path in (source / "reference/api").glob("warmstart.loss.md")} == {"warmstart.loss"}
    assert {"index", "loss", "hydra_launcher"} <= {path.stem for path in (source / "reference/config").glob("*.md")}


def test_a_table_of_settings_has_types_ranges_defaults_and_comments(extension):
    text = extension.option("loss", CONF / "loss/focal.yaml")
    assert "| `gamma` | a number, 0 or more | `2.0` | 0 is cross-entropy |" in text
    assert "| `lr` | a number above 0 | `0.01` |" in extension.option("optimizer", CONF / "optimizer/sgd.yaml")
    stage = extension.option("stage", CONF / "stage/pretrain.yaml")
    assert "| `data.pack` | a whole number from 8 to 1,048,576, or null | `null` | block size in tokens" in stage


def test_every_option_and_setting_is_on_the_page_of_its_group(extension):
    skipped = (*extension.HYDRA, "stage", "experiment")
    for group in extension.groups():
        if group == "experiment":
            continue
        page = extension.page(group)
        for path in extension.options(group):
            assert f"## `{path.stem}`" in page
            names = [name for name, _ in extension.comments(path) if name.split(".")[0] not in skipped]
            assert [name for name in names if f"`{name}" not in page] == []
