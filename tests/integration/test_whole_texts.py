"""A text whose beginning does not fill the model is read a second time. Its row may be written meanwhile.

A worker reads the first 100 characters per token that its model reads. Here the second reading is held while
something happens to the row. Whatever it is: at rest every vector is that of its row's text, and so is every
vector remembered.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.records import Encoder, Fate, Key, Outcome, SourceRow, Tokens, Vector
from freshvec.source.rows import RowReader
from freshvec.target.upsert import TargetWriter
from freshvec.worker.worker import Worker
from tests.staleness import stale
from tests.support import (
    Connection,
    NullEncoder,
    bound_sync,
    content_hash,
    count,
    running,
    settings_for,
    sync_of,
    until,
    wait_fresh,
)

KEY = ("1",)


@dataclass
class SecondRead:
    """Holds every reading of a whole text for as long as `meanwhile` takes, which is told the key."""

    meanwhile: Callable[[Key], None] = lambda key: None
    keys: list[Key] = field(default_factory=list)

    def hold(self, key: Key) -> None:
        self.keys.append(key)
        self.meanwhile(key)


@pytest.fixture
def second_read(monkeypatch: pytest.MonkeyPatch) -> SecondRead:
    held, read = SecondRead(), RowReader.read

    def reading(reader: RowReader, keys: Sequence[Key], *, whole: bool = False) -> list[SourceRow | None]:
        if whole:
            held.hold(keys[0])
        return read(reader, keys, whole=whole)

    monkeypatch.setattr(RowReader, "read", reading)
    return held


class Scene:
    """The table, the texts that were ever in it, and another reader of it."""

    def __init__(self, docs: Connection, settings: Settings, encoder: Encoder) -> None:
        self.docs = docs
        self.encoder = encoder
        self.settings = settings
        self._beginning = " " * (100 * encoder.max_tokens + 10)
        self.text = self.long("How to bake bread at home.")
        self.other = self.long("Tuning a guitar by ear.")
        self.texts = {self.text, self.other, "short"}

    def long(self, end: str) -> str:
        """A text that says nothing before its end, which the first reading does not reach."""
        return self._beginning + end

    def edit(self, row: int, text: str | None) -> None:
        self.docs.execute("UPDATE docs SET body = %s WHERE id = %s", (text, row))

    def delete(self, row: int) -> None:
        self.docs.execute("DELETE FROM docs WHERE id = %s", (row,))

    def draw_fence(self) -> int:
        (fence,) = self.docs.execute("SELECT nextval('freshvec.fence')").fetchone() or (0,)
        return int(fence)

    def write_by_another(self, fence: int, text: str) -> None:
        """Another reader has read this text of row 1 with that fence, and writes its vector."""
        (vector,) = self.encoder.encode(self.encoder.tokenize([text]))
        with connect(self.settings.database.url, "another") as connection:
            writer = TargetWriter(connection, bound_sync(connection, self.settings, self.encoder))
            with connection.transaction():
                writer.write([Outcome(KEY, fence, Fate.STORE, vector, content_hash(text))])
        written = "SELECT fence, content_hash FROM docs_embedding WHERE id = 1"
        assert self.docs.execute(written).fetchone() == (fence, content_hash(text)), "the write counted"

    def fill(self, rows: int, text: str) -> None:
        self.docs.execute("INSERT INTO docs SELECT g, %s FROM generate_series(1, %s) g", (text, rows))

    def rest(self, worker: Worker) -> None:
        """Until everything read is written, and nothing waits to be read."""
        waiting = "SELECT FROM freshvec.queue_docs"

        def is_at_rest() -> bool:
            (keeper,) = worker.keepers
            pipeline = keeper.pipeline
            written = pipeline is not None and not pipeline.ledger.in_flight()
            return keeper.is_fresh and written and self.docs.execute(waiting).fetchone() is None

        until("everything is at rest", is_at_rest)

    def forgeries(self, worker: Worker) -> list[str]:
        """Texts whose remembered vector is not theirs."""
        recent = worker.keepers[0].dispatcher.recent
        wrong = []
        for text in self.texts:
            remembered = recent.get(content_hash(text))
            (fresh,) = self.encoder.encode(self.encoder.tokenize([text]))
            if remembered is not None and float(remembered @ fresh) < 0.9999:
                wrong.append(text.strip())
        return wrong


@pytest.fixture
def scene(url: str, docs: Connection) -> Scene:
    """With an encoder whose vectors depend on every letter. Texts over 100 characters are read twice."""
    return Scene(docs, settings_for(url, sync_of("docs"), sweep_seconds=600.0), NullEncoder(max_tokens=1))


def play(scene: Scene, second_read: SecondRead, portion: str, rows: int = 1) -> None:
    """Rows get the long text, before the backfill or while a worker runs, and at rest nothing is wrong."""
    if portion == "backfill":
        scene.fill(rows, scene.text)
    else:
        scene.fill(rows, "short")
    with running(scene.settings, scene.encoder) as worker:
        if portion == "live":
            wait_fresh(worker)
            scene.draw_fence()  # so that another reader may have one between the last and the next
            scene.docs.execute("UPDATE docs SET body = %s", (scene.text,))
        until("the second reading has begun", lambda: second_read.keys)
        scene.rest(worker)
        assert stale(scene.docs, scene.encoder) == []
        assert scene.forgeries(worker) == []
        # Neither would a later row with one of these texts get a vector that is not its own.
        second_read.meanwhile = lambda key: None
        for row, text in enumerate(scene.texts, 1000):
            scene.docs.execute("INSERT INTO docs VALUES (%s, %s)", (row, text))
        until("the later rows are embedded", lambda: count(scene.docs, "docs_embedded WHERE id >= 1000") == 3)
        scene.rest(worker)
        assert stale(scene.docs, scene.encoder) == []


def once(action: Callable[[], None]) -> Callable[[Key], None]:
    """For the first second reading alone."""
    left = [action]

    def meanwhile(key: Key) -> None:
        if left:
            left.pop()()

    return meanwhile


def written_with_an_older_fence(scene: Scene) -> None:
    """As by the same worker: its earlier portion had the same text in hand."""
    (last,) = scene.docs.execute("SELECT last_value FROM freshvec.fence").fetchone() or (0,)
    scene.write_by_another(last - 1, scene.text)


def written_with_a_newer_fence(scene: Scene) -> None:
    scene.write_by_another(scene.draw_fence(), scene.text)


def edited_and_written_with_a_newer_fence(scene: Scene) -> None:
    scene.edit(1, scene.other)
    scene.write_by_another(scene.draw_fence(), scene.other)


def edited_and_back_and_written(scene: Scene) -> None:
    scene.edit(1, "short")
    scene.edit(1, scene.text)
    scene.write_by_another(scene.draw_fence(), scene.text)


def deleted_and_inserted(scene: Scene) -> None:
    scene.delete(1)
    scene.docs.execute("INSERT INTO docs VALUES (1, %s)", (scene.other,))


MEANWHILE: dict[str, Callable[[Scene], None]] = {
    "nothing": lambda scene: None,
    "written with an older fence": written_with_an_older_fence,
    "written with a newer fence": written_with_a_newer_fence,
    "edited, and written with a newer fence": edited_and_written_with_a_newer_fence,
    "edited and back, and written": edited_and_back_and_written,
    "edited to another long text": lambda scene: scene.edit(1, scene.other),
    "edited to a short text": lambda scene: scene.edit(1, "short"),
    "deleted": lambda scene: scene.delete(1),
    "deleted and inserted": deleted_and_inserted,
    "emptied": lambda scene: scene.edit(1, None),
    "blanked": lambda scene: scene.edit(1, " \n"),
}


@pytest.mark.parametrize("portion", ["live", "backfill"])
@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE.keys())
def test_a_row_written_while_its_text_is_read_whole(
    scene: Scene, second_read: SecondRead, meanwhile: Callable[[Scene], None], portion: str
) -> None:
    second_read.meanwhile = once(lambda: meanwhile(scene))
    play(scene, second_read, portion)


@pytest.mark.parametrize("portion", ["live", "backfill"])
@pytest.mark.parametrize("edited", [1, 2, 3])
def test_one_of_several_rows_with_the_same_text_is_edited(
    scene: Scene, second_read: SecondRead, edited: int, portion: str
) -> None:
    second_read.meanwhile = once(lambda: scene.edit(edited, scene.other))
    play(scene, second_read, portion, rows=3)


@pytest.mark.parametrize("portion", ["live", "backfill"])
def test_every_row_with_the_same_text_is_written_before_its_own_second_reading(
    scene: Scene, second_read: SecondRead, portion: str
) -> None:
    def meanwhile(key: Key) -> None:
        changes: dict[str, Callable[[], None]] = {
            "1": lambda: scene.edit(1, scene.other),
            "2": lambda: scene.delete(2),
            "3": lambda: scene.edit(3, None),
            "4": lambda: scene.edit(4, "short"),
        }
        if len(second_read.keys) <= 4:
            changes[key[0]]()

    second_read.meanwhile = meanwhile
    play(scene, second_read, portion, rows=4)
    assert {key[0] for key in second_read.keys} >= {"1", "2", "3", "4"}


@pytest.mark.parametrize("portion", ["live", "backfill"])
def test_the_same_with_the_model(
    url: str, docs: Connection, encoder: OnnxEncoder, second_read: SecondRead, portion: str
) -> None:
    scene = Scene(docs, settings_for(url, sync_of("docs"), sweep_seconds=600.0), encoder)

    def meanwhile() -> None:
        written_with_an_older_fence(scene)
        scene.edit(2, scene.other)

    second_read.meanwhile = once(meanwhile)
    play(scene, second_read, portion, rows=3)


class Noted(NullEncoder):
    """Tokens as of the real model, and no vectors worth the name: what it was asked to encode is kept."""

    def __init__(self, encoder: OnnxEncoder) -> None:
        super().__init__(max_tokens=encoder.max_tokens)
        self._encoder = encoder
        self.ids: set[tuple[int, ...]] = set()

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        return self._encoder.tokenize(texts)

    def encode(self, batch: list[Tokens]) -> Vector:
        self.ids.update(tuple(tokens.ids.tolist()) for tokens in batch)
        return super().encode(batch)


def cut_texts(limit: int) -> Iterator[str]:
    """Texts whose word at the last places of the model is the word that the cut goes through."""
    for places in (252, 253, 254):
        for within in (0, 1, 3, 9, 11):  # letters of it before the cut
            yield cut_at(limit, "word " * places, "unbelievable things follow", within)
            yield cut_at(limit, "word\n" * places, "unbelievable\nthings", within)
            yield cut_at(limit, "-" * places, "unbelievable-things-follow", within)
            yield cut_at(limit, "a\x1f " * places, "unbe\x1flievable things", within)


def cut_at(limit: int, before: str, after: str, within: int) -> str:
    return " " * (limit - len(before) - within) + before + after


def test_the_word_that_the_cut_goes_through_has_the_tokens_of_the_whole_word(
    url: str, docs: Connection, encoder: OnnxEncoder
) -> None:
    texts = list(cut_texts(100 * encoder.max_tokens))
    wanted = {tuple(tokens.ids.tolist()) for tokens in encoder.tokenize(texts)}
    for row, text in enumerate(texts):
        docs.execute("INSERT INTO docs VALUES (%s, %s)", (row, text))
    noted = Noted(encoder)
    with running(settings_for(url, sync_of("docs")), noted) as worker:
        wait_fresh(worker)
    assert noted.ids == wanted
