"""Phrases that the project's style guide forbids occur in no source, test, script, setting or document."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "conf", "src", "scripts", "tests")
SUFFIXES = {".py", ".md", ".yaml", ".toml", ".css", ".svg"}
GENERATED = (ROOT / "docs/reference/config", ROOT / "docs/reference/api")
PHRASES = (
    "heed",
    "heeded",
    "taken up",
    "takes up",
    "gone on",
    "goes on with",
    "go on from",
    "begun anew",
    "another maker",
    "spoilt",
    "called a halt",
    "is told",
    "are told",
    "says so",
    "which is said",
    "is said at",
    "what people would rather",
    "leaves no trace",
    "beside what it",
    "of like length",
    "as far as they fit",
    "and its way out again",
)
BREAK = r"(?:[ \t]*\n[ \t#*>\"'(f]*|[ \t]+)"  # also a line break, with the comment sign or quotes of the next line
PATTERN = re.compile(rf"\b(?:{'|'.join(phrase.replace(' ', BREAK) for phrase in PHRASES)})\b", re.IGNORECASE)


def scanned() -> list[Path]:
    """Return the files to scan: this one and generated pages are excluded."""
    found = [*ROOT.glob("README*.md"), ROOT / "CONTRIBUTING.md", ROOT / "Makefile", ROOT / "train.py"]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES]
    return sorted(path for path in found if path != Path(__file__) and not set(GENERATED) & set(path.parents))


def occurrences(text: str) -> list[tuple[int, str]]:
    """Return the line number and the phrase of each occurrence in a text."""
    return [
        (text.count("\n", 0, match.start()) + 1, " ".join(re.findall(r"\w+", match[0])))
        for match in PATTERN.finditer(text)
    ]


@pytest.mark.quick
def test_no_file_has_a_forbidden_phrase():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in scanned()
        for line, phrase in occurrences(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.quick
def test_phrases_are_found_in_any_case_and_across_lines_but_not_inside_words():
    assert occurrences("# Nothing is\n# TOLD here.") == [(1, "is TOLD")]
    assert occurrences("heedless, misheed, this told") == []
