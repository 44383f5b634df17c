"""Sphinx extension that writes a page for each config group, from its yaml files and their targets' signatures."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generated_pages import write_pages
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from sphinx.application import Sphinx

from warmstart.config.schema import SEVERAL, STAGES, SWEEP, Section
from warmstart.config.signature import FACTS
from warmstart.core.ranges import describe
from warmstart.main import CONF

PAGES = Path(__file__).parent / "reference" / "config"
LINE = re.compile(r"(?P<indent> *)(?P<name>\w+):(?P<value>(?: [^#]*)?)(?:#\s*(?P<comment>.*))?$")
HYDRA = ("_target_", "_partial_", "defaults", "hydra")
ARGUMENT = re.compile(r"\n\s+(\w+): (.*?)(?=\n\s+\w+: |\n\s*\n|\n\s*(?:Returns|Raises):|\Z)", re.DOTALL)
TITLES = {
    "stage": "Stages",
    "experiment": "Experiments",
    "debug": "Debugging",
    "hydra/launcher": "Launchers of a sweep",
    "hydra/sweeper": "Sweeper",
}


@dataclass(frozen=True)
class Setting:
    """A row of a table: a setting of an option."""

    name: str
    kind: str
    default: str
    comment: str


def groups() -> list[str]:
    """Return the config groups: each folder of yaml files, except the files of one experiment."""
    found = {str(path.parent.relative_to(CONF)) for path in CONF.rglob("*.yaml")} - {"."}
    return sorted(name for name in found if not name.startswith("experiment/"))


def options(group: str) -> list[Path]:
    """Return the yaml files of a group."""
    return sorted((CONF / group).glob("*.yaml"))


def description(path: Path) -> str:
    """Return the comment at the top of a yaml file as one line of Markdown; empty if there is none."""
    lines: list[str] = []
    for line in path.read_text().splitlines():
        if line.startswith("# @package") or (line.startswith("_target_:") and not lines):
            continue
        if not line.startswith("# "):
            break
        lines.append(line[2:])
    return " ".join(lines)


def comments(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the dotted name of each setting of a yaml file, with its comment."""
    parents: list[tuple[int, str]] = []
    name, found = "", []
    for line in path.read_text().splitlines():
        match = LINE.match(line)
        if match and match["value"].count("}") > match["value"].count("{"):  # the end of a value of several lines
            continue
        if match:
            if name:
                yield name, " ".join(found)
            indent = len(match["indent"])
            parents = [entry for entry in parents if entry[0] < indent]
            name = ".".join([*(parent for _, parent in parents), match["name"]])
            parents.append((indent, match["name"]))
            found = [match["comment"]] if match["comment"] else []
        elif re.match(r" +# ", line):
            found.append(line.strip()[2:])
        elif name:
            yield name, " ".join(found)
            name, found = "", []
    if name:
        yield name, " ".join(found)


def sections(group: str, path: Path) -> Section | None:
    """Return the section of the schema for an option without a signature; None if there is none."""
    if group == "stage":
        return STAGES[path.stem]
    if group == "sweep":
        return Section({"sweep": SWEEP}, is_open=True)
    if group == "transfer":
        return Section({**STAGES["transfer"].keys, **STAGES["transfer"].keys["transfer"].keys})
    if group == "debug":
        return STAGES["finetune"]
    known = STAGES["transfer"].keys.get(group)
    return known if isinstance(known, Section) else None


def hint_of(name: str, signature: Mapping[str, Any], section: Section | None) -> Any:
    """Return the type of a setting by its dotted name, or its section; Any if neither is known."""
    if name in signature:
        return signature[name]
    hint: Any = section
    for part in name.split("."):
        hint = hint.keys.get(part, Any) if isinstance(hint, Section) else Any
    return hint


def kind_of(hint: Any) -> str:
    """Return a type and its range in words; empty if it is not known."""
    return "" if hint in (Any, inspect.Parameter.empty) or isinstance(hint, Section) else describe(hint)


def plain(value: Any) -> str:
    """Return a value in the syntax of the command line."""
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=False)
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(plain, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {plain(inner)}' for key, inner in value.items())}}}"
    return str(value) if value != "" else '""'


def arguments(docstring: str) -> dict[str, str]:
    """Return the description of each argument in the Args section of a docstring."""
    _, _, rest = docstring.partition("Args:")
    return {name: " ".join(text.split()).removesuffix(".") for name, text in ARGUMENT.findall(rest)}


def typed(function: Callable[..., Any] | None) -> dict[str, inspect.Parameter]:
    """Return the parameters of a component, except `*args` and `**kwargs`."""
    if function is None:
        return {}
    fixed = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in fixed}


def settings(group: str, path: Path, function: Callable[..., Any] | None) -> list[Setting]:
    """Return the settings of an option: those in its yaml, then those only in its signature."""
    config = OmegaConf.load(path)
    facts = FACTS.get(group.rpartition("/")[2], ())
    is_ours = function is not None and function.__module__.startswith("warmstart.")
    parameters = typed(function) if is_ours else {}
    hints = {name: parameter.annotation for name, parameter in parameters.items() if name not in facts}
    documented = arguments(inspect.getdoc(function) or "") if is_ours else {}
    section = sections(group, path)
    rows = []
    for name, comment in comments(path):
        value = config
        for part in name.split("."):
            value = OmegaConf.to_container(value, resolve=False).get(part) if OmegaConf.is_dict(value) else None
            value = OmegaConf.create(value) if isinstance(value, dict | list) else value
        is_block = OmegaConf.is_dict(value) and any(other.startswith(f"{name}.") for other, _ in comments(path))
        if name.split(".")[0] in HYDRA or is_block or name in ("stage", "experiment"):
            continue
        hint = hint_of(name, hints, section)
        inner = {name: value}
        if isinstance(hint, Section) and OmegaConf.is_dict(value) and value:  # written in one line
            inner = {f"{name}.{key}": entry for key, entry in OmegaConf.to_container(value, resolve=False).items()}
        for full, entry in inner.items():
            said = comment or documented.get(full, "") if full == name else ""
            rows.append(Setting(full, kind_of(hint_of(full, hints, section)), plain(entry), said))
    shown = {row.name for row in rows} | set(config)
    for name, hint in hints.items():
        default = parameters[name].default
        if name not in shown and default is not inspect.Parameter.empty and not callable(default):
            rows.append(Setting(f"+{name}", describe(hint), plain(default), documented.get(name, "")))
    return rows


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


def table(rows: list[Setting]) -> str:
    """Return the settings as a Markdown table."""
    lines = ["| setting | type and range | default | |", "| --- | --- | --- | --- |"]
    for row in rows:
        lines.append(f"| `{row.name}` | {cell(row.kind)} | `{row.default}` | {cell(row.comment)} |")
    return "\n".join(lines)


def summary(function: Callable[..., Any]) -> str:
    """Return the docstring of a component up to its list of arguments."""
    text = inspect.getdoc(function) or ""
    return re.split(r"\n\s*(?:Args|Returns|Raises):", text)[0].replace("*", "\\*").strip()


def chosen(path: Path) -> str:
    """Return the options of other groups in the defaults of a yaml file, as overrides."""
    defaults = OmegaConf.to_container(OmegaConf.load(path)).get("defaults", [])
    pairs = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    return ", ".join(f"`{key.removeprefix('override ').lstrip('/')}={plain(value)}`" for key, value in pairs if value)


def option(group: str, path: Path) -> str:
    """Return the section of a page for one option."""
    config = OmegaConf.load(path)
    function = get_object(config["_target_"]) if "_target_" in config else None
    is_ours = function is not None and function.__module__.startswith(("warmstart.", "hydra_plugins."))
    blocks = [f"## `{path.stem}`"]
    if description(path):
        blocks.append(description(path).replace("*", "\\*").replace("<", "&lt;"))
    if is_ours and group not in ("stage", "hydra/launcher", "hydra/sweeper"):
        blocks.append(summary(function))
    if function is not None:
        blocks.append(f"Class or function: `{config['_target_']}`.")
    if chosen(path):
        blocks.append(f"Selects {chosen(path)}.")
    rows = settings(group, path, function)
    blocks.append(table(rows) if rows else "No settings.")
    return "\n\n".join(blocks)


def recipe(path: Path) -> str:
    """Return the section of the page for one experiment: its description, and its file for each stage."""
    blocks = [f"## `{path.stem}`", description(path)]
    for stage in sorted(path.with_suffix("").glob("*.yaml"), key=lambda file: "pft".find(file.stem[0])):
        blocks.append(f"`stage={stage.stem}`:\n\n```yaml\n{stage.read_text().strip()}\n```")
    return "\n\n".join(blocks)


def page(group: str) -> str:
    """Return the page of a config group."""
    title = TITLES.get(group, group.rpartition("/")[2].replace("_", " ").capitalize())
    names = ", ".join(f"`{path.stem}`" for path in options(group))
    several = group in (*SEVERAL, "data/augment")
    choice = f"any number by `{group}=[NAME,...]`" if several else f"one by `{group}=NAME`"
    parts = [f"# {title}", f"Select {choice}: {names}."]
    parts += [recipe(path) if group == "experiment" else option(group, path) for path in options(group)]
    return "\n\n".join(parts) + "\n"


def write(app: Sphinx) -> None:
    """Write the page of each config group."""
    write_pages(
        PAGES,
        {group.replace("/", "_"): page(group) for group in groups()},
        "Config groups",
        "Each group is a folder of `conf/`, each option a yaml file. These pages are generated from the yaml files "
        "and the signatures of their targets. A setting with a plus sign is not in the yaml file; set it with the "
        "prefix `+`.",
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx reads its sources."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
