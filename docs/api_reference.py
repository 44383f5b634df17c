"""Sphinx extension that writes a page for each package, with the signatures and docstrings of its public names.

It parses the source without importing it. Docstrings are Markdown; Args, Returns and Raises become lists of fields.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from generated_pages import write_pages
from sphinx.application import Sphinx

import warmstart

ROOT = Path(warmstart.__file__).parent
PAGES = Path(__file__).parent / "reference" / "api"
SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Source|Sources):\s*$", re.MULTILINE)
ENTRY = re.compile(r"^ {4}(\*{0,2}[\w.]+): ", re.MULTILINE)
FIELDS = {"Args": "param", "Raises": "raises"}


def packages() -> dict[str, list[Path]]:
    """Return the modules of each package, by dotted name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        if "conf" not in path.relative_to(ROOT).parts and not (path.stem.startswith("_") and path.stem != "__init__"):
            found.setdefault(".".join(["warmstart", *path.parent.relative_to(ROOT).parts]), []).append(path)
    return found


def prose(text: str) -> str:
    """Return text of a docstring as Markdown with escaped stars and angle brackets."""
    return re.sub(r"`[^`]*`|[*<]", lambda found: found[0] if len(found[0]) > 1 else f"\\{found[0]}", text).strip()


def docstring(node: ast.AST) -> str:
    """Return the docstring of a module, class or function as Markdown with fields; empty if there is none."""
    text = ast.get_docstring(node) or ""
    pieces = SECTION.split(text)
    blocks, fields = [prose(pieces[0])], []
    for name, body in zip(pieces[1::2], pieces[2::2]):
        inside, _, after = re.sub(r"\n(?=\S)", "\0", body.strip("\n") + "\n").partition("\0")
        if name in FIELDS and ENTRY.search(inside):
            cut = ENTRY.split(inside)
            for argument, said in zip(cut[1::2], cut[2::2]):
                fields.append(f":{FIELDS[name]} {argument.lstrip('*')}: {prose(' '.join(said.split()))}")
        elif name in ("Returns", "Yields"):
            fields.append(f":{name.lower()}: {prose(' '.join(inside.split()))}")
        else:
            blocks.append(f"{name}: {prose(' '.join(inside.split()))}")
        if after.strip():
            blocks.append(prose(after.replace("\0", "\n")))
    return "\n\n".join([*blocks, "\n".join(fields)]).strip()


def is_public(node: ast.AST) -> bool:
    """Return whether a statement defines a class or a function whose name has no leading underscore."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and not node.name.startswith("_")


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, is_method: bool = False) -> str:
    """Return the parameters and the return type of a function; for a method, without self."""
    given = ast.parse(ast.unparse(node)).body[0].args  # a copy
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if is_method and "staticmethod" not in decorators and (given.posonlyargs or given.args):
        (given.posonlyargs or given.args).pop(0)
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(given)}){result}"


def constructor(node: ast.ClassDef) -> str:
    """Return the parameters of the constructor of a class, or its fields; empty if it has neither."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return signature(child, is_method=True).partition(" -> ")[0]
    marks = [ast.unparse(mark) for mark in (*node.decorator_list, *node.bases)]
    if any("dataclass" in mark or mark == "NamedTuple" for mark in marks):
        fields = [ast.unparse(child) for child in node.body if isinstance(child, ast.AnnAssign)]
        return f"({', '.join(field for field in fields if 'ClassVar' not in field)})"
    return ""


def directive(kind: str, heading: str, options: list[str], body: str, ticks: int) -> str:
    """Return a directive of Sphinx's Python domain in MyST's notation."""
    fence = "`" * ticks
    lines = [f"{fence}{{py:{kind}}} {' '.join(heading.split())}", *options, "", body, fence]
    return "\n".join(lines)


def method(node: ast.FunctionDef) -> str:
    """Return a method or a property of a class."""
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
    options = [f":{name}:" for name in ("classmethod", "staticmethod", "abstractmethod") if name in decorators]
    if decorators & {"property", "cached_property"}:
        options = [f":type: {ast.unparse(node.returns)}"] if node.returns else []
        return directive("property", node.name, options, docstring(node), 4)
    return directive("method", node.name + signature(node, is_method=True), options, docstring(node), 4)


def definitions(tree: ast.Module) -> Iterator[str]:
    """Yield the public classes and functions of a module."""
    for node in filter(is_public, tree.body):
        if isinstance(node, ast.ClassDef):
            documented = [child for child in node.body if is_public(child) and ast.get_docstring(child)]
            methods = [method(child) for child in documented if isinstance(child, ast.FunctionDef)]
            body = "\n\n".join([docstring(node), *dict.fromkeys(methods)])
            yield directive("class", node.name + constructor(node), [], body, 5)
        else:
            yield directive("function", node.name + signature(node), [], docstring(node), 4)


def page(package: str, paths: list[Path]) -> str:
    """Return the page of a package; empty if it has no public names."""
    blocks = []
    for path in paths:
        tree = ast.parse(path.read_text())
        found = list(definitions(tree))
        name = package if path.stem == "__init__" else f"{package}.{path.stem}"
        if found:
            blocks += [f"## {name}", f"```{{py:module}} {name}\n```", docstring(tree), *found]
    return "\n\n".join([f"# {package}", *blocks]) + "\n" if blocks else ""


def write(app: Sphinx) -> None:
    """Write the page of each package."""
    pages = {package: text for package, paths in packages().items() if (text := page(package, paths))}
    write_pages(
        PAGES,
        pages,
        "Python packages",
        "The public classes and functions, by package. They are internal to Warmstart, whose interface is the command "
        "line and the run folders: they may change from one version to the next.",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx reads its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
