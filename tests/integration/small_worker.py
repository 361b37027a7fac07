"""A worker without a model, of small steps, as a process that can be killed: `python -m
tests.integration.small_worker URL [share]`."""

import sys
import tempfile
from pathlib import Path

from freshvec.worker.worker import Worker
from tests.support import NullEncoder, settings_for, sync_of


def main(url: str, *, share: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        declared = sync_of("docs", target={"type": "real[]"})
        small = {"page_rows": 100, "commit_every_batches": 1, "batch_tokens": 512, "share": share}
        settings = settings_for(url, declared, models_dir=Path(folder), **small)
        worker = Worker(settings, settings.sync, load=lambda _: NullEncoder(seconds_a_batch=0.005))
        worker.handle_signals()
        worker.run()


if __name__ == "__main__":
    main(sys.argv[1], share="share" in sys.argv[2:])
