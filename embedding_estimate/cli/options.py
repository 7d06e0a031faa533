"""Options made from `settings.PARAMETERS`. A new setting is an option without a change here."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from embedding_estimate.errors import SettingsError
from embedding_estimate.hosts.standalone.sampler_names import CHOICES
from embedding_estimate.settings import PARAMETERS, Settings
from embedding_estimate.settings.parameters import Parameter, spelled

Command = TypeVar("Command", bound=Callable[..., Any])

OFFERED = tuple(replace(parameter, choices=CHOICES.get(parameter.name, parameter.choices)) for parameter in PARAMETERS)
ALIASES = {"other_prompt": ("--negative",), "guidance_scale": ("--cfg-scale",)}
ARGUMENT = "text"  # the one setting that is typed without an option


class PathType(click.Path):
    """A path that is not empty. An unset shell variable gives an empty text, which must not mean the current folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, option: click.Parameter | None, context: click.Context | None) -> Any:
        if value == "" and option is not None:
            raise SettingsError([f"{option.opts[0]} is empty: give a path, or leave it out"])
        return super().convert(value, option, context)


def value_of(parameter: Parameter) -> Callable[[Any], Any]:
    """A function that reads a setting's value from text. Text that it cannot read stays as it is, for `Settings.check`
    to name."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if parameter.choices:
            return spelled(value, parameter.choices)
        try:
            return parameter.kind(value)
        except ValueError:
            return value

    read.__name__ = parameter.kind.__name__  # click's help calls the value so
    return read


def setting_options(names: Collection[str] | None = None) -> Callable[[Command], Command]:
    """Adds the options of these settings, or of all. An option that was not typed arrives as None."""

    def add(command: Command) -> Command:
        for parameter in reversed(OFFERED):  # decorators apply from below
            if parameter.name != ARGUMENT and (names is None or parameter.name in names):
                command = setting_option(parameter)(command)
        return command

    return add


def setting_option(parameter: Parameter) -> Callable[[Command], Command]:
    """The option for one setting."""
    flag = parameter.name.replace("_", "-")
    facts = "; ".join(_facts(parameter))
    help = f"{parameter.help}  [{facts}]" if facts else parameter.help
    if parameter.kind is bool:
        return click.option(f"--{flag}/--no-{flag}", parameter.name, default=None, help=help)
    return click.option(
        f"--{flag}",
        *ALIASES.get(parameter.name, ()),
        parameter.name,
        type=value_of(parameter),
        default=None,
        multiple=bool(parameter.lines),
        callback=_join if parameter.lines else None,
        metavar={int: "INTEGER", float: "NUMBER", str: "NAME" if parameter.choices else "TEXT"}[parameter.kind],
        help=help,
    )


def _facts(parameter: Parameter) -> list[str]:
    """Choices, unit, bounds and default, for the help text."""
    facts = []
    if parameter.choices:
        facts.append(", ".join(parameter.choices))
    if parameter.minimum is not None:
        bounds = f"{parameter.minimum:g} or more"
        if parameter.maximum is not None:
            bounds = f"{parameter.minimum:g} to {parameter.maximum:,.15g}"
        facts.append(f"{bounds} {parameter.unit}".rstrip())
    if parameter.lines:
        facts.append("repeat for several lines")
    default = {True: "on", False: "off"}[parameter.default] if parameter.kind is bool else parameter.default
    return [*facts, f"default: {' / '.join(str(default).splitlines())}"] if default != "" else facts


def _join(context: click.Context, option: click.Parameter, lines: tuple[str, ...]) -> str | None:
    return "\n".join(lines) if lines else None


def typed_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a command's options that are settings and were typed."""
    known = {parameter.name for parameter in PARAMETERS}
    return {name: value for name, value in options.items() if name in known and value is not None}


def checked(values: Mapping[str, Any]) -> Settings:
    """Settings from what was typed. Raises `SettingsError` with every problem.

    One problem is text that is not in the system's encoding. Python represents its bytes as lone surrogates, which no
    tokenizer takes.
    """
    settings = Settings.from_mapping(values)
    broken = [name for name, value in values.items() if re.search("[\ud800-\udfff]", str(value))]
    if broken:
        raise SettingsError([f"{name} holds bytes that are not text: give it as UTF-8" for name in broken])
    unknown = [line for p in OFFERED if p.name in CHOICES and (line := p.problem(getattr(settings, p.name)))]
    if problems := [*dict.fromkeys([*unknown, *settings.problems()])]:
        raise SettingsError(problems)
    return settings


def png(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuses a report whose name does not end in .png, before any work."""
    if path is not None and path.suffix.lower() != ".png":
        raise SettingsError([f"{path}: the report is a PNG picture; give a name that ends in .png"])
    return path


report_option = click.option(
    "--report", type=PathType(), callback=png, metavar="FILE.png", help="Save a picture with the figures and images."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
