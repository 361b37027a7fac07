"""Write docs/configuration.md from the settings' own descriptions; with --check only say if it differs."""

import argparse
import ast
import inspect
import itertools
import os
import sys
import textwrap
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from freshvec.config import SEARCHED, Daemon, Database, Sync, Web
from freshvec.storage import Chunk, Index, Target

FILE = Path(__file__).parents[1] / "docs" / "configuration.md"
SECTIONS: tuple[tuple[str, type[BaseModel], str | None], ...] = (
    ("[database]", Database, "FRESHVEC_DATABASE_"),
    ("[daemon]", Daemon, "FRESHVEC_DAEMON_"),
    ("[web]", Web, "FRESHVEC_WEB_"),
    ("[[sync]]", Sync, None),
    ("target, of a sync", Target, None),
    ("chunk, of a sync", Chunk, None),
    ("index, of a sync", Index, None),
)
HEAD = f"""# Configuration

<!-- `make docs` writes this file from the settings' own descriptions in config.py and storage.py. -->

freshvec reads one TOML file: the one named with `--config`, else the one in `FRESHVEC_CONFIG`, else
`{SEARCHED[0]}` in the working folder, else `{SEARCHED[1]}`.

A variable of the environment wins over the file, and so does a credential of systemd that is named as a
setting is, such as `database_url`; a variable wins over a credential. A command that is typed reads the
service's file `database_url` beside the configuration as that credential, where whoever types it may read it.
A faulty file is refused with every fault at once: the key, what is wrong, and what to write instead.

Two more variables are no settings of the file. `FRESHVEC_API_KEY` is the key that embeddings requests must
carry, and that the page and the metrics ask for as a password; an address that others can reach needs one.
systemd's credential `api_key` does the same. `NO_COLOR` takes all colours and styles off what is shown.
"""
NAMES = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the file differs")
    arguments = parser.parse_args()
    wanted = document()
    if arguments.check:
        found = FILE.read_text(encoding="utf-8") if FILE.exists() else ""
        if found != wanted:
            print(f"{FILE.relative_to(FILE.parents[1])} is not what the settings say; run: make docs")
        return int(found != wanted)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(wanted, encoding="utf-8")
    return 0


def document() -> str:
    """The whole file."""
    parts = [HEAD]
    for title, model, prefix in SECTIONS:
        parts.append(f"## {title}\n\n{_wrapped(model.__doc__ or '')}\n")
        described = descriptions(model)
        parts += [_setting(name, model, described, prefix) for name in model.model_fields]
    return "\n".join(parts)


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The text under each setting, by its name.

    pydantic could read them too, but would do so whenever a command starts.
    """
    (made,) = ast.parse(inspect.getsource(model)).body
    assert isinstance(made, ast.ClassDef)
    found = {}
    for setting, text in itertools.pairwise(made.body):
        match setting, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = inspect.cleandoc(words)
    return found


def _setting(name: str, model: type[BaseModel], described: dict[str, str], prefix: str | None) -> str:
    """One setting: its name, its description, its type, its default, and its variable."""
    field = model.model_fields[name]
    if name not in described:
        sys.exit(f"{model.__name__}.{name} has no description under it")
    facts = [f"Type: {_type(field.annotation)}", _default(field.default), *_bounds(field.metadata)]
    if prefix:
        separated = f", parts separated by `{os.pathsep}`" if get_origin(field.annotation) is tuple else ""
        facts.append(f"variable `{prefix}{name.upper()}`{separated}")
    return f"### `{name}`\n\n{_wrapped(described[name])}\n\n{_wrapped('; '.join(facts) + '.')}\n"


def _type(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (UnionType, Union):
        return " or ".join(_type(part) for part in arguments if part is not NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table, see below"
    return NAMES.get(annotation, "text")  # SecretStr is text that no log shows


def _default(default: Any) -> str:
    if default is PydanticUndefined:
        return "must be given"
    if (
        default is None
        or isinstance(default, BaseModel)
        or not str(getattr(default, "_secret_value", default))
    ):
        return "may be left out"
    written = "[]" if default == () else str(default).lower() if isinstance(default, bool) else default
    return f"default `{written}`"


def _bounds(metadata: list[Any]) -> list[str]:
    """The least value and the greatest, where there are any."""
    words = (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
    return [
        f"{word} {getattr(rule, name)}" for rule in metadata for name, word in words if hasattr(rule, name)
    ]


def _wrapped(text: str) -> str:
    return textwrap.fill(inspect.cleandoc(text), 110, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    sys.exit(main())
