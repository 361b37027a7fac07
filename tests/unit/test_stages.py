"""How long stages took."""

import pytest

from freshvec.pipeline.stages import Spent, Stages


def test_runs_and_seconds_add_up_and_a_failed_run_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 12.0, 20.0, 20.5, 30.0])
    monkeypatch.setattr("freshvec.pipeline.stages.time.monotonic", lambda: next(now))
    stages = Stages()
    with stages.timed("read"):
        pass
    with stages.timed("read"):
        pass
    with pytest.raises(ValueError, match="broken"), stages.timed("write"):
        raise ValueError("broken")
    assert stages.totals() == {"read": Spent(2, 2.5), "tokenise": Spent(), "write": Spent()}
