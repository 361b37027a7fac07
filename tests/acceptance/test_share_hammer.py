"""Workers that share a sync, under hot rows, walks and faults: at rest nothing is wrong."""

from pathlib import Path

from freshvec.embedded import EmbeddedPostgres
from freshvec.encoding.encoder import OnnxEncoder
from tests.acceptance.share_hammer import company, hammer


def test_nothing_is_wrong_at_rest(server18: EmbeddedPostgres, encoder: OnnxEncoder, tmp_path: Path) -> None:
    shared = company(server18, 1, tmp_path)
    try:
        told = hammer(shared, encoder, workers=4, seconds=20, restart=False)
    finally:
        shared.close()
    assert shared.wrong == [], told
