"""The line for `systemctl status`."""

from freshvec.worker.headline import line


def test_trouble_comes_first_then_what_is_not_fresh() -> None:
    parts = {"a": (2, "a 100%"), "b": (1, "b 12.5%, 7 wait"), "c": (0, "c: its table is gone")}
    assert line(parts) == "c: its table is gone; b 12.5%, 7 wait; a 100%"
    assert line(parts, "no TOML").startswith("the file is not taken up: no TOML; c:")


def test_it_stays_short_and_on_one_line() -> None:
    parts = {f"s{number}": (2, f"s{number}: one\n two " + "x" * 400) for number in range(50)}
    shown = line(parts)
    assert "\n" not in shown
    assert shown.endswith("; and 38 more")
    assert len(shown) < 12 * 165


def test_where_nothing_is_declared_it_says_so() -> None:
    assert line({}) == "no sync is declared"


def test_a_secret_is_hidden_before_the_text_is_cut() -> None:
    secret = f"postgresql://u:{'geheim' * 8}@h/d"
    for begin in range(100, 160):
        assert "geheim" not in line({"a": (0, "x" * begin + secret)})
