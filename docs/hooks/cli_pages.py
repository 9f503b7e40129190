"""A reference page for every verb of the command line, from the dataclass behind it.

Texts are the docstrings that `calid VERB --help` shows, so that both say the same.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path

import tyro
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from calid.cli import main

Row = tuple[str, str, str]
"""An option or argument, its default, its meaning."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    shared = shared_options()
    for name, verb in verbs(main.Verb):
        uri = f"reference/cli/{name.replace(' ', '-')}.md"
        files.append(File.generated(config, uri, content=page(name, verb, shared)))
    return files


def verbs(union: object, before: str = "") -> Iterator[tuple[str, type]]:
    """Names as typed (``train autoencoder``) and their dataclasses; groups come before members."""
    for choice in typing.get_args(union):
        # A verb is called as its class is, unless it is marked with another name.
        cls, *marks = typing.get_args(choice) or (choice,)
        name = before + next((m.name for m in marks if hasattr(m, "name")), cls.__name__.lower())
        yield name, cls
        for hint in typing.get_type_hints(cls, include_extras=True).values():
            if _is_choice_of_verbs(hint):
                yield from verbs(hint, f"{name} ")


def shared_options() -> list[Row]:
    """Options that stand behind every verb: those beside the verb in what is parsed."""
    command = getattr(main, "Command", None)
    return rows(command)[1] if command else []


def page(name: str, verb: type, shared: list[Row]) -> str:
    """Markdown of one verb."""
    arguments, options, groups = rows(verb)
    usage = ["calid", name, *(argument for argument, _, _ in arguments)]
    usage += [f"{{{','.join(groups)}}}"] if groups else []
    usage += ["[options]"] if options else []
    lines = [f"# calid {name}", "", inspect.cleandoc(verb.__doc__ or ""), ""]
    lines += ["```text", " ".join(usage), "```", ""]
    slug = name.replace(" ", "-")
    lines += [f"- [`calid {name} {group}`]({slug}-{group}.md)" for group in groups]
    if arguments:
        lines += ["## Arguments", "", "| argument | meaning |", "|---|---|"]
        lines += [f"| `{n}` | {_cell(t)} |" for n, _, t in arguments] + [""]
    if not groups:
        lines += ["## Options", "", "| option | default | meaning |", "|---|---|---|"]
        lines += [f"| {n} | {d} | {_cell(t)} |" for n, d, t in [*options, *shared]]
        lines += ["| `--help` | | Say all this, and stop. |"]
    return "\n".join(lines) + "\n"


def rows(verb: type) -> tuple[list[Row], list[Row], list[str]]:
    """Arguments, options, and names of sub-verbs; options of a nested dataclass count as own."""
    texts = {k: v for base in reversed(verb.__mro__) for k, v in field_texts(base).items()}
    hints = typing.get_type_hints(verb, include_extras=True)
    arguments: list[Row] = []
    options: list[Row] = []
    groups: list[str] = []
    for field in dataclasses.fields(verb):
        hint, text = hints[field.name], texts.get(field.name, "")
        if _is_choice_of_verbs(hint):
            groups += [short for short, _ in verbs(hint)]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            options += rows(hint)[1]
        elif tyro.conf.Positional in typing.get_args(hint)[1:]:
            arguments.append((field.name.upper(), "", text))
        else:
            options.append((_flag(field.name, hint), _default(field), text))
    return arguments, options, groups


def field_texts(cls: type) -> dict[str, str]:
    """The string below each field of a class's own body."""
    if not dataclasses.is_dataclass(cls):
        return {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    body = typing.cast(ast.ClassDef, tree.body[0]).body
    return {
        field.target.id: str(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _is_choice_of_verbs(hint: object) -> bool:
    choices = [c for c in typing.get_args(hint) if typing.get_origin(c) is typing.Annotated]
    return any(dataclasses.is_dataclass(typing.get_args(c)[0]) for c in choices)


def _flag(name: str, hint: object) -> str:
    """How an option is typed, with what it takes."""
    flag = f"--{name.replace('_', '-')}"
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    if hint is bool:
        return f"`{flag}`, `--no{flag[1:]}`"
    kinds = _kinds(hint)
    return f"`{flag} {{{','.join(kinds)}}}`" if len(kinds) > 1 else f"`{flag} {kinds[0]}`"


def _kinds(hint: object) -> list[str]:
    """What a value may be: words to type as they are, or the kind in capitals."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return [str(part) for part in parts]
    if parts:
        kinds = [kind for part in parts for kind in _kinds(part)]
        return list(dict.fromkeys(kinds))
    if hint in (type(None), Ellipsis):
        return []
    names = {Path: "PATH", int: "INT", float: "FLOAT", str: "TEXT"}
    return [names.get(typing.cast(type, hint), getattr(hint, "__name__", str(hint)).upper())]


def _default(field: dataclasses.Field[object]) -> str:
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default
    return "" if value in (None, (), dataclasses.MISSING) else f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
