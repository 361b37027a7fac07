"""Models of the protocols between processes, checked by spin in every state they can come to."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest


def _errors(folder: Path, model: Path, optimise: str, *defines: str) -> int:
    """How many the checker finds in the model, with these variants and bounds of it chosen; it ends at the
    first."""
    if shutil.which("spin") is None:
        pytest.fail(f"{model.name} is checked by spin: `apt-get install spin`")
    make = ["cc", optimise, "-DSAFETY", "-w", "-o", "pan", "pan.c"]
    subprocess.run(["spin", *defines, "-a", model], cwd=folder, check=True, capture_output=True)
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    checked = subprocess.run(["./pan", "-m1000000"], cwd=folder, check=True, capture_output=True)
    said = checked.stdout.decode()
    assert "max search depth too small" not in said
    (found,) = re.findall(r"errors: (\d+)", said)
    return int(found)


def holds(folder: Path, model: Path, *defines: str) -> bool:
    """Whether the model's property holds in all states."""
    return _errors(folder, model, "-O1", *defines) == 0


def is_broken(folder: Path, model: Path, *defines: str) -> bool:
    """Whether there is a state in which it does not. One is found soon, so that compiling takes longest."""
    return _errors(folder, model, "-O0", *defines) > 0


def variants(*models: Path) -> set[str]:
    """The rules that these can be checked without."""
    return {rule for model in models for rule in re.findall(r"BROKEN_(\w+)", model.read_text())}
