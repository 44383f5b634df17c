"""JSON and YAML files that would exhaust memory are refused with a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.core.reading import check_name, is_inside, load_config, load_json

pytestmark = pytest.mark.quick

LISTS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
LISTS += "".join(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {k: x}\n"
MERGES += "".join(f"a{n}: &a{n} {{<<: [{', '.join(9 * [f'*a{n - 1}'])}]}}\n" for n in range(1, 12))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LISTS, "aliases expand to more than 10,000 values"),
        (MERGES, "aliases expand to more than 10,000 values"),
        (CHAIN, "nested more than 50 deep"),
        ("a: &a [*a]", r"alias \*a refers to no anchor before it, or to a node that contains it"),
        ("[" * 100_000 + "]" * 100_000, "nest"),
        ("a: " + "{a: " * 60 + "1" + "}" * 60, "nested more than 50 deep"),
        ("a: " + "1" * 5000, "digits"),
        ("a: " + "x" * 2**22, "more than 4,194,304 bytes"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    ],
    ids=["lists", "merges", "chain", "circle", "lists in lists", "mappings", "number", "size", "object"],
)
def test_yaml_that_expands_without_end_is_refused(text: str, reason: str, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(Exception, match=reason):
        load_config(path)


def test_yaml_with_a_few_aliases_is_read(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text("a: &a {lr: 1}\nb: *a\nc: {<<: *a, n: 2}\n")
    assert load_config(path) == {"a": {"lr": 1}, "b": {"lr": 1}, "c": {"lr": 1, "n": 2}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        ("1" * 5000, "5,000 digits"),
        ("1" * 400, "400 digits"),
        ("-1e999", "too large"),
        (r'["\ud800"]', "unpaired surrogate"),
        ("{", "property name"),
    ],
    ids=["unclosed", "objects", "digits", "no float", "exponent", "surrogate", "broken"],
)
def test_json_that_cannot_be_stored_is_refused(text: str, reason: str, tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        load_json(path)


def test_json_is_read_as_it_is(tmp_path: Path):
    path = tmp_path / "run.json"
    path.write_text(r'{"a": [1.5, -3, 1000000000000000019884624838656, null], "b": "\ud83d\ude00"}', encoding="utf-8")
    assert load_json(path) == {"a": [1.5, -3, 1000000000000000019884624838656, None], "b": "😀"}
    with pytest.raises(ValueError, match="not a regular file"):
        load_json(tmp_path)


@pytest.mark.parametrize(
    "name", ["..", ".", "", "../x", "/x", "a\\b", "a\nb", "a\x1b[2J", "\u202ea", 3, None], ids=repr
)
def test_a_name_that_leads_elsewhere_is_none(name: object):
    for folders in (False, True):
        with pytest.raises(ValueError, match="not a valid name"):
            check_name("experiment", name, folders)
    check_name("experiment", "mine/größe 2.b-c", folders=True)
    with pytest.raises(ValueError, match="not a valid name"):
        check_name("id", "mine/x")


def test_a_link_is_inside_where_it_leads_to(tmp_path: Path):
    root, elsewhere = tmp_path / "models--a" / "snapshots" / "1", tmp_path / "models--a" / "blobs"
    for folder in (root, elsewhere, tmp_path / "other"):
        folder.mkdir(parents=True)
    (elsewhere / "0").touch()
    (root / "blob").symlink_to("../../blobs/0")
    (root / "out").symlink_to(tmp_path / "other")
    (root / "in").symlink_to("blob")
    found = {name: is_inside(root / name, root) for name in ("blob", "in", "out", "none", "../x")}
    assert found == {"blob": True, "in": True, "out": False, "none": True, "../x": False}
    (tmp_path / "fake" / "snapshots" / "1").mkdir(parents=True)
    (tmp_path / "fake" / "blobs").symlink_to("/")
    assert not is_inside(Path("/etc/hostname"), tmp_path / "fake" / "snapshots" / "1")
