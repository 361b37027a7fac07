"""`backfill` without a terminal: plain lines, a summary, and what a killed one leaves to the next."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.support import (
    DOCS_SYNC,
    Connection,
    WorkerProcess,
    config_toml,
    count,
    freshvec,
    until,
    write_config,
)

ROWS, LONG = 600, 5
CHECKPOINT = "SELECT backfill_after[1]::bigint FROM freshvec.sync WHERE name = 'docs'"
LINE = re.compile(
    rf"docs: ([\d,]+) of {ROWS:,} rows, (\d+) rows/s, ETA (\S+ \S+|–), ([\d,]+) cut at 256 tokens, \d+ MiB"
)
SUMMARY = re.compile(
    r"docs: every row is fresh; ([\d,]+) rows in .+, ([\d,]+) encoded, \d+ rows/s, "
    r"([\d,]+ cut at 256 tokens, )?0 failed"
)


# The real program, so slow on any machine that it can be killed or stopped in the middle.
SLOW = """
import time
import onnxruntime
from freshvec.cli.main import main

run = onnxruntime.InferenceSession.run
onnxruntime.InferenceSession.run = lambda *given, **named: time.sleep(0.3) or run(*given, **named)
main()
"""
FILL = """
INSERT INTO docs SELECT g, g || repeat(' words', CASE WHEN g > %s THEN 1 ELSE 300 END)
  FROM generate_series(1, %s) g
"""
WRITTEN = "SELECT count(*) FROM docs_embedding WHERE id <= %s AND embedding IS NOT NULL"


def lines(output: str) -> list[re.Match[str]]:
    """The lines that say how far it is, behind the first, which says that it begins."""
    return [line for line in LINE.finditer(output) if number(line[1])]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_plain_lines_then_killed_then_on_from_the_checkpoint(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute(FILL, (LONG, ROWS))
    toml = config_toml(url, models_dir, DOCS_SYNC, "page_rows = 50\nbatch_tokens = 128")
    config = write_config(tmp_path / "freshvec.toml", toml)
    process = workers(config, "backfill", python=("-c", SLOW))
    until("a line says how far it is", lambda: lines(process.output))
    until("the checkpoint has moved", lambda: docs.execute(CHECKPOINT).fetchone() not in (None, (None,)))
    assert process.is_running, "it is still in the middle"
    process.kill()

    line = lines(process.output)[0]
    assert 0 < number(line[1]) < ROWS
    assert number(line[2]) > 0, "a rate"
    assert line[3] != "–", "an estimate of the time left"
    assert number(line[4]) > 0, "texts longer than the model reads"
    reached = docs.execute(CHECKPOINT).fetchone()
    assert reached is not None
    assert 0 < reached[0] < ROWS
    assert docs.execute(WRITTEN, reached).fetchone() == reached, "every row up to the checkpoint is written"

    again = freshvec("backfill", "--config", str(config))
    assert again.returncode == 0, again.stderr
    summary = SUMMARY.search(again.stderr)
    assert summary is not None, again.stderr
    done, encoded = map(number, summary.groups()[:2])
    assert done == ROWS - reached[0], "it begins behind the checkpoint"
    assert 0 < encoded <= done
    assert docs.execute(WRITTEN, (ROWS,)).fetchone() == (ROWS,)
    for output in (process.output, again.stderr, again.stdout):
        assert "\x1b" not in output, "no control characters where there is no terminal"
        assert "\r" not in output, "nor a line drawn over itself"


def test_stopped_by_a_signal_it_says_so_and_the_next_goes_on(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    docs.execute(FILL, (LONG, ROWS))
    toml = config_toml(url, models_dir, DOCS_SYNC, "page_rows = 50\nbatch_tokens = 128")
    config = write_config(tmp_path / "freshvec.toml", toml)
    process = workers(config, "backfill", python=("-c", SLOW))
    until("it has begun", lambda: "owned by this worker" in process.output)
    assert process.stop() == 1, "not every row is fresh"
    assert "stopped before the end; run it again to go on" in process.output
    assert "Traceback" not in process.output
    assert freshvec("backfill", "--config", str(config)).returncode == 0


def test_it_refuses_while_a_daemon_owns_the_sync_and_disturbs_nothing(
    url: str, docs: Connection, models_dir: Path, tmp_path: Path, workers: Callable[..., WorkerProcess]
) -> None:
    config = write_config(tmp_path / "freshvec.toml", config_toml(url, models_dir, DOCS_SYNC))
    daemon = workers(config)
    until("the daemon owns it", lambda: "owned by this worker" in daemon.output)
    refused = freshvec("backfill", "--config", str(config))
    assert refused.returncode == 1
    assert "cannot backfill sync 'docs': a running worker keeps it fresh" in refused.stderr
    assert "See `freshvec status`" in refused.stderr, "the remedy"
    assert "Traceback" not in refused.stderr
    docs.execute("INSERT INTO docs VALUES (1, 'still kept fresh')")
    until("the daemon works on", lambda: count(docs, "docs_embedding WHERE id = 1") == 1)
    assert daemon.stop() == 0
    assert freshvec("backfill", "--config", str(config)).returncode == 0, "now it may"
