"""The arithmetic of a benchmark: rates, shares, ratios; and which texts it takes."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshvec.bench import texts
from freshvec.bench.matrix_rate import MatrixRate
from freshvec.bench.report import Contender, Report, ratio, shares
from freshvec.bench.throughput import Pass, one_pass
from freshvec.errors import EncodingError, FreshvecError
from freshvec.models import catalogue
from freshvec.models.artefact import Artefact
from tests.support import MODEL
from tests.unit.recorder import Recorder


def a_pass(seconds: float, tokens: int = 1000) -> Pass:
    return Pass(seconds, seconds / 4, 10, tokens, tokens * 5 // 4)


def contender(name: str, *seconds: float, ours: bool = True, settled: bool = True) -> Contender:
    passes = [a_pass(each) for each in seconds]
    return Contender(name, "cpu", "fp32", lambda rows: passes[0], 1.0, 512 if ours else None, settled, passes)


def a_report(*contenders: Contender, limits: tuple[float, ...] = (), flops: int = 100) -> Report:
    artefact = Artefact(
        card=catalogue.find(MODEL),
        weights_sha256="",
        tokenizer_sha256="",
        pad_id=0,
        graphs={},
        flops_per_token=flops,
    )
    made = Report(artefact, texts.Texts("texts", ["a"] * 10), 2, 1000, 0, list(contenders))
    if limits:
        made.limits["fp32", "cpu"] = [MatrixRate(limit, "numpy", (1, 1, 1)) for limit in limits]
    return made


def test_rates_of_a_pass() -> None:
    one = a_pass(2.0)
    assert one.tokens_per_second == 500
    assert one.texts_per_second == 5
    assert one.encoded_per_second == pytest.approx(1000 / 1.5)
    assert one.waste == pytest.approx(0.2)


def test_a_batch_that_does_not_fit_is_named_with_what_helps() -> None:
    encoder = Recorder()
    encoder.gate.set()
    encoder.room = 3
    with pytest.raises(EncodingError, match=r"padded tokens on cpu: it does not fit .*--batch-tokens"):
        one_pass(encoder, ["some text"] * 4, 512)


def test_a_share_is_of_the_better_limit_beside_its_round() -> None:
    assert shares([10, 20], [1000, 2000, 500], 50) == [0.25, 0.5]


def test_shares_and_ratios_are_medians_of_rounds_not_of_their_parts() -> None:
    ours, theirs = contender("fp32", 1.0, 2.0, 4.0), contender("fastembed", 4.0, 4.0, 4.0, ours=False)
    report = a_report(ours, theirs, limits=(200_000, 200_000, 200_000, 200_000))
    assert report.share(ours) == pytest.approx(0.25)
    assert report.ratios(ours) == {"fastembed": 2.0}
    assert report.ratios(theirs) == {}
    assert ratio([a_pass(1.0), a_pass(3.0), a_pass(2.0)], [a_pass(2.0), a_pass(3.0), a_pass(8.0)]) == 2.0


def test_a_ratio_is_never_across_devices() -> None:
    ours, theirs = contender("fp32", 1.0), contender("fastembed", 4.0, ours=False)
    theirs.device = "cuda"
    assert a_report(ours, theirs).ratios(ours) == {}


def test_a_rate_over_the_limit_is_noted() -> None:
    ours = contender("fp32", 1.0)
    report = a_report(ours, limits=(50_000, 80_000))
    assert report.share(ours) == pytest.approx(1.25)
    assert any("125% of its limit" in note for note in report.notes())
    assert not a_report(ours, limits=(100_000, 200_000)).notes(), "nothing to say at half of it"


def test_what_is_not_known_is_noted_and_not_invented() -> None:
    ours = contender("fp32", 1.0, settled=False)
    assert a_report(ours).share(ours) is None
    assert any("limit is not known" in note for note in a_report(ours).notes())
    uncounted = a_report(ours, limits=(1.0, 1.0), flops=0)
    assert uncounted.share(ours) is None
    assert any("freshvec export" in note for note in uncounted.notes())
    assert any("had not settled" in note for note in uncounted.notes())
    assert uncounted.json()["flops_per_token"] is None


@given(st.integers(1, 50), st.integers(0, 200))
def test_texts_are_spread_over_all_of_them(count: int, have: int) -> None:
    rows = [str(i) for i in range(have)]
    taken = texts.spread(rows, count)
    assert len(taken) == min(count, have)
    places = [int(row) for row in taken]
    assert places == sorted(set(places))
    if have > count:
        gaps = [b - a for a, b in zip([*places, have], [*places[1:], have], strict=False)][:-1]
        assert max(gaps, default=1) - min(gaps, default=1) <= 1
        assert have - places[-1] <= have // count + 1, "the end of them too"


def test_a_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "titles.txt"
    path.write_text("first\n\n  \nsecond\r\nwith a {brace}\n", encoding="utf-8")
    assert [row.strip() for row in texts.of_file(path, 10).rows] == ["first", "second", "with a {brace}"]


def test_a_file_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "titles.jsonl"
    path.write_text('"first"\n{"text": "second\\nline", "id": 3}\n', encoding="utf-8")
    assert texts.of_file(path, 10).rows == ["first", "second\nline"]


@pytest.mark.parametrize("line", ['{"body": "no text"}', "3", "not json", '{"text": null}'])
def test_a_line_that_holds_no_text_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "titles.jsonl"
    path.write_text(f'"fine"\n{line}\n', encoding="utf-8")
    with pytest.raises(FreshvecError, match=r"line 2 of .*titles\.jsonl: it holds no text"):
        texts.of_file(path, 10)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FreshvecError, match="UTF-8"):
        texts.of_file(path, 10)
