"""`freshvec bench`, the real program on the real model: of a sync, a file, or its own; never how fast."""

import json
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from freshvec.models.artefact import MANIFEST
from tests.support import DOCS_SYNC, MODEL, Connection, config_toml, freshvec, until, write_config

FLOPS = 21_233_664
# A `sitecustomize` that hides packages from the program, as on a machine without them.
MISSING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError("hidden by the test", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def models(models_dir: Path, tmp_path: Path) -> Path:
    """The exported model as every export from now on describes it: fp32, with its FLOPs per token."""
    folder = tmp_path / "models" / MODEL
    folder.mkdir(parents=True)
    for name in ("fp32.onnx", "fp32.onnx.data", "tokenizer.json"):
        (folder / name).symlink_to(models_dir / MODEL / name)
    manifest = json.loads((models_dir / MODEL / MANIFEST).read_text())
    manifest["flops_per_token"] = FLOPS
    manifest["graphs"] = {"fp32": manifest["graphs"]["fp32"]}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder.parent


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "titles.txt"
    path.write_text("".join(f"Title number {i}, of no great length\n" for i in range(300)), encoding="utf-8")
    return path


def bench(*arguments: str, cwd: Path, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command in a folder with no configuration file, some packages hidden."""
    begin = (
        MISSING.format(names=hidden)
        + "import sys\nfrom freshvec.cli.main import main\nsys.argv[0] = 'freshvec'\nmain()\n"
    )
    program = [sys.executable, "-c", begin, "bench", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=600, cwd=cwd, check=False)


def of_lines(models: Path, lines: Path, *, rows: int, rounds: int) -> tuple[str, ...]:
    """The arguments that measure the model on the CPU with so many lines of a file."""
    texts = (MODEL, "--models-dir", str(models), "--texts", str(lines))
    return (*texts, "--rows", str(rows), "--rounds", str(rounds), "--device", "cpu")


def found(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_from_a_file_without_configuration(models: Path, lines: Path, tmp_path: Path) -> None:
    given = of_lines(models, lines, rows=20, rounds=2)
    report = found(
        bench(*given, "--json", "--against", "sentence-transformers", "--against", "fastembed", cwd=tmp_path)
    )
    assert report["texts"]["count"] == 20
    assert report["texts"]["tokens"] > 20 * 5
    ours, theirs = report["results"]
    assert (ours["name"], ours["device"]) == ("fp32", "cpu")
    assert theirs["name"] == "sentence-transformers"
    assert len(ours["rounds"]) == len(theirs["rounds"]) == 2
    assert {one["tokens"] for one in ours["rounds"] + theirs["rounds"]} == {report["texts"]["tokens"]}, (
        "real tokens alone"
    )
    assert all(0 < one["tokenizing"] < one["seconds"] for one in ours["rounds"])
    assert ours["times_as_fast_as"]["sentence-transformers"] > 0
    assert ours["batch_tokens"] > 0
    assert 0 <= ours["padding"] < 1
    assert report["flops_per_token"] == FLOPS
    (limit,) = report["limits"]
    assert (limit["precision"], limit["device"], len(limit["rounds"])) == ("fp32", "cpu", 3), (
        "before, between and after"
    )
    best = max(rate["flops"] for rate in limit["rounds"])
    assert (
        ours["share_of_limit"]
        >= 0.999 * min(one["tokens"] / one["seconds"] for one in ours["rounds"]) * FLOPS / best
    )
    first, *others = report["tokenizing"]
    assert (first["package"], first["processes"]) == ("tokenizers", 1)
    is_quick = any(other["package"].startswith("nanotoken ") for other in others)
    assert is_quick != any("freshvec[nanotoken]" in note for note in report["notes"])
    assert is_quick == (find_spec("nanotoken") is not None)
    assert any(note.startswith("fastembed on cpu is left out: ") for note in report["notes"])
    assert report["machine"]["packages"]["onnxruntime"]


def test_a_table_from_a_sync_of_a_database(url: str, docs: Connection, models: Path, tmp_path: Path) -> None:
    docs.execute(
        "INSERT INTO docs SELECT g, 'A text of some words, number ' || g FROM generate_series(1, 500) g"
    )
    config = write_config(tmp_path / "bench.toml", config_toml(url, models, DOCS_SYNC, "batch_tokens = 512"))
    done = freshvec(
        "bench", "--sync", "docs", "--rows", "60", "--rounds", "1", "--device", "cpu", "--config", str(config)
    )
    assert done.returncode == 0, done.stderr
    assert "60 rows of sync docs" in done.stdout
    row = next(line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["fp32"])
    assert row[1] == "cpu"
    assert row[4].endswith("%"), "share of the limit"
    assert "512" in row, "as configured"
    for words in (
        "limit of fp32 on cpu:",
        "a token costs 21.2 MFLOP",
        "tokenising alone, tokenizers, one process:",
        "onnxruntime 1",
    ):
        assert words in done.stdout
    assert "round 1 of 1: fp32 on cpu" in done.stderr, "plain lines where there is no terminal"
    for output in (done.stdout, done.stderr):
        assert "\x1b" not in output
        assert "…" not in output, "nothing is cut"
    assert docs.execute("SELECT to_regnamespace('freshvec')").fetchone() == (None,), "nothing is written"


def test_docstrings_without_torch_and_onnx(models: Path, tmp_path: Path) -> None:
    given = (MODEL, "--models-dir", str(models), "--rows", "4", "--rounds", "1", "--device", "cpu")
    hidden = ("torch", "onnx", "sentence_transformers")
    report = found(bench(*given, "--json", "--against", "sentence-transformers", cwd=tmp_path, hidden=hidden))
    assert report["texts"]["origin"] == "docstrings of the standard library"
    assert [result["name"] for result in report["results"]] == ["fp32"]
    assert {rate["library"] for rate in report["limits"][0]["rounds"]} == {"numpy"}
    left_out = [note for note in report["notes"] if "left out" in note]  # with AMX bf16 as well
    assert any("package sentence_transformers is not installed" in note for note in left_out)


def test_an_old_export_says_what_shares_need(models: Path, lines: Path, tmp_path: Path) -> None:
    manifest = models / MODEL / MANIFEST
    manifest.write_text(
        json.dumps({k: v for k, v in json.loads(manifest.read_text()).items() if k != "flops_per_token"})
    )
    done = bench(*of_lines(models, lines, rows=15, rounds=1), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"run `freshvec export {MODEL}` again" in done.stdout


def test_wrong_usage_is_said_before_anything_is_measured(models: Path, lines: Path, tmp_path: Path) -> None:
    def refused(code: int, *arguments: str) -> str:
        done = bench(*arguments, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        return " ".join(done.stderr.replace("│", " ").split())

    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n", encoding="utf-8")
    at = ("--models-dir", str(models))
    assert "it is not in the catalogue" in refused(78, "no-such-model", *at)
    assert "freshvec export bge-m3" in refused(78, "bge-m3", *at)
    assert "there is none. Give one text per line." in refused(1, MODEL, *at, "--texts", str(empty))
    assert "does not exist" in refused(2, MODEL, *at, "--texts", str(tmp_path / "nothing.txt"))
    assert "either --sync or --texts" in refused(2, MODEL, *at, "--texts", str(lines), "--sync", "docs")
    assert "there is no device 'tpu'" in refused(2, MODEL, *at, "--device", "tpu")
    assert "write sentence-transformers or fastembed" in refused(2, MODEL, *at, "--against", "pgai")
    assert "freshvec.toml" in refused(78, "--rows", "3"), "without a model, a configuration is needed"
    shutil.rmtree(models / MODEL)
    assert "it is not exported" in refused(78, MODEL, *at)


def test_ctrl_c_ends_it_without_a_word_too_many(models: Path, lines: Path, tmp_path: Path) -> None:
    measuring = ("freshvec", "bench", *of_lines(models, lines, rows=300, rounds=1000))
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *measuring],
            stderr=output,
            stdout=output,
            cwd=tmp_path,
            # A shell's background jobs, and so perhaps this test, have it ignored, which a process inherits.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            until("it measures", lambda: "round 1 of 1000" in log.read_text(), 120)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in log.read_text()
