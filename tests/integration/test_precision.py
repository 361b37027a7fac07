"""The precision that is left open: the vectors that are there decide, then the machine; nothing is encoded
anew, and no two classes are mixed, because a worker has another processor."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from freshvec.capture.bell import Listener, Waker
from freshvec.config import Settings
from freshvec.db import connect
from freshvec.doctor import device
from freshvec.doctor.finding import Finding, Severity
from freshvec.doctor.place import Place
from freshvec.encoding import openvino_session, trial
from freshvec.encoding.diagnosis import Diagnosis
from freshvec.encoding.loading import Models
from freshvec.encoding.machine import machine
from freshvec.errors import DeviceError, ModelError, SchemaError
from freshvec.models.artefact import Artefact
from freshvec.pipeline.pressure import Pressure
from freshvec.pipeline.resources import Resources
from freshvec.schema import migrations
from freshvec.schema.apply import apply
from freshvec.schema.plan import plan
from freshvec.worker.keepers import Keepers
from tests.integration.doctor_checks import worst
from tests.support import MODEL, Connection, models_in, settings_for, sync_of

NOT_HERE = Diagnosis("this processor does not compute in bf16", "It takes one with AMX.")
Machine = Callable[..., None]


@pytest.fixture
def folder(models_dir: Path, tmp_path: Path) -> Path:
    """A models folder of its own, in which nothing was tried."""
    made = tmp_path / "models"
    made.mkdir()
    (made / MODEL).symlink_to(models_dir / MODEL)
    return made


@pytest.fixture
def artefact(folder: Path) -> Artefact:
    return models_in(folder).artefact(MODEL)


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, folder: Path, artefact: Artefact) -> Machine:
    """Makes this a machine on which bf16 runs so many times as fast, or not at all."""

    def become(speed: float | None, worst: float = 0.9998) -> None:
        monkeypatch.setattr(openvino_session, "refusal", lambda: NOT_HERE if speed is None else None)
        monkeypatch.setattr(trial, "version", lambda package: "2026.4")
        done = {
            "graph": artefact.graphs["fp32"].sha256,
            "library": "2026.4",
            "worst_cosine": worst,
            "worst_batched": 1.0,
            "speed": speed,
        }
        path = folder / "trials.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(known | {f"{MODEL} in bf16 on {machine()}": done}))

    return become


@pytest.fixture
def settings(url: str, docs: Connection, folder: Path) -> Settings:
    return settings_for(url, sync_of("docs"), models_dir=folder, device="cpu")


def applied(settings: Settings) -> None:
    """The sync as a worker on this machine would have it."""
    with connect(settings.database.url, "test") as connection:
        migrations.migrate(connection)
        apply(connection, settings.sync[0], Models(settings).describe(settings.sync[0]))


def is_as_declared(settings: Settings) -> bool:
    model = Models(settings).describe(settings.sync[0])
    with connect(settings.database.url, "test") as connection:
        return not plan(connection, settings.sync[0], model).is_redefined


def asking_for(settings: Settings, precision: str) -> Settings:
    return settings.model_copy(update={"daemon": settings.daemon.model_copy(update={"precision": precision})})


def fingerprint(settings: Settings) -> bytes:
    return Models(settings).describe(settings.sync[0]).fingerprint


def test_a_new_table_is_in_bf16_where_it_is_quicker(
    settings: Settings, artefact: Artefact, on: Machine
) -> None:
    on(2.5)
    assert fingerprint(settings) == artefact.fingerprint("bf16") != artefact.fingerprint("fp32")


@pytest.mark.parametrize("speed", [None, 1.1])
def test_a_new_table_is_in_fp32_where_it_is_not(
    settings: Settings, artefact: Artefact, on: Machine, speed: float | None
) -> None:
    on(speed)
    assert fingerprint(settings) == artefact.fingerprint("fp32") == artefact.fingerprint("fp16")


def test_bf16_that_is_not_near_enough_is_not_chosen_and_refused_when_asked_for(
    settings: Settings, artefact: Artefact, on: Machine
) -> None:
    on(3.0, worst=0.9)
    assert fingerprint(settings) == artefact.fingerprint("fp32")
    with pytest.raises(ModelError, match=r"worst cosine is 0\.90000"):
        Models(asking_for(settings, "bf16")).encoder(MODEL)


def test_vectors_of_fp32_stay_when_a_quicker_machine_takes_over(settings: Settings, on: Machine) -> None:
    on(None)
    applied(settings)
    on(3.0)
    assert is_as_declared(settings)
    assert Models(settings).encoder(MODEL).precision == "fp32"


def test_vectors_of_bf16_stay_when_a_machine_without_it_takes_over(settings: Settings, on: Machine) -> None:
    on(3.0)
    applied(settings)
    on(None)
    assert is_as_declared(settings)
    with pytest.raises(DeviceError) as raised:
        Models(settings).encoder(MODEL)
    assert "in bf16, in which its vectors in the database are" in str(raised.value)
    assert 'write precision = "fp32": every row is then encoded anew' in raised.value.remedy


def test_a_precision_that_is_written_is_another_definition(settings: Settings, on: Machine) -> None:
    on(3.0)
    applied(settings)
    assert is_as_declared(asking_for(settings, "bf16"))
    assert not is_as_declared(asking_for(settings, "fp32"))


def test_a_server_that_is_away_leaves_it_at_what_it_was(
    settings: Settings, artefact: Artefact, on: Machine
) -> None:
    on(3.0)
    applied(settings)
    nowhere = "postgresql://nobody@127.0.0.1:9/none"
    away = settings_for(nowhere, sync_of("docs"), models_dir=settings.daemon.models_dir)
    on(None)
    assert fingerprint(away) == artefact.fingerprint("bf16")


def test_a_worker_that_could_not_ask_encodes_nothing_anew(
    settings: Settings, folder: Path, on: Machine
) -> None:
    on(3.0)
    applied(settings)
    (folder / "trials.json").unlink()
    on(None)
    away = settings_for("postgresql://nobody@127.0.0.1:9/none", sync_of("docs"), models_dir=folder)
    assumed = Models(away).describe(settings.sync[0])  # fp32, since nothing says otherwise
    with (
        connect(settings.database.url, "test") as connection,
        pytest.raises(SchemaError, match="another precision"),
    ):
        plan(connection, settings.sync[0], assumed)


@pytest.fixture
def away(settings: Settings, docs: Connection, folder: Path, on: Machine) -> Iterator[Callable[[], None]]:
    """A server that takes no connection until it is called, with vectors of bf16 that this folder knows
    nothing of."""
    on(3.0)
    applied(settings)
    (folder / "trials.json").unlink()
    on(None)

    def takes(connections: bool) -> None:
        name, value = sql.Identifier(docs.info.dbname), sql.Literal(connections)
        elsewhere = make_conninfo(settings.database.url.get_secret_value(), dbname="postgres")
        with psycopg.connect(elsewhere, autocommit=True) as server:
            server.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(name, value))

    takes(False)
    yield lambda: takes(True)
    takes(True)


def test_what_was_loaded_before_the_server_could_be_asked_is_asked_for_again(
    settings: Settings, folder: Path, away: Callable[[], None]
) -> None:
    models = Models(settings)
    loaded = models.encoder(MODEL)
    assert loaded.precision == "fp32", "since nothing says otherwise"
    assert trial.Trials(folder).last(MODEL) is None, "nor is it noted, as if it were known"
    assert not models.is_mistaken(MODEL, loaded), "as far as can be told"
    away()
    assert models.is_mistaken(MODEL, loaded)
    assert trial.Trials(folder).last(MODEL) == "bf16"
    assert not models.is_mistaken(MODEL, loaded), "it is asked for once"


def test_a_worker_that_began_before_the_server_loads_the_model_anew(
    settings: Settings, away: Callable[[], None]
) -> None:
    """Here this processor cannot do it, which is said; it does not stand still in another precision."""
    resources = Resources(settings, Pressure(None))
    keepers = Keepers(settings, None, resources, lambda: None, once=False)
    keepers.begin(settings.sync)
    assert [dispatcher.encoder.precision for dispatcher in keepers.dispatchers.values()] == ["fp32"]
    away()
    listener = Listener(settings.database.url, Waker())
    assert keepers.change_to(settings.sync, listener)
    assert (keepers.all, keepers.dispatchers) == ([], {})
    assert "in bf16, in which its vectors in the database are" in keepers.left_out["docs"]
    listener.close()
    resources.close()


def test_bf16_without_its_library_names_the_package(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_session, "is_installed", lambda: False)
    with pytest.raises(DeviceError) as raised:
        Models(asking_for(settings, "bf16")).encoder(MODEL)
    assert "pip install 'freshvec[openvino]'" in raised.value.remedy


def said_by_doctor(settings: Settings) -> Finding:
    return worst(list(device.device(Place(settings, None))))


def test_doctor_says_that_bf16_is_left_unused(
    settings: Settings, on: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(None)
    applied(settings)
    monkeypatch.setattr(device, "multiplies_bf16", lambda: False)
    assert said_by_doctor(settings).severity is Severity.OK, "this processor could not do it"
    monkeypatch.setattr(device, "multiplies_bf16", lambda: True)
    lacking = said_by_doctor(settings)
    assert lacking.severity is Severity.WARNING
    assert lacking.remedy == NOT_HERE.remedy
    on(2.5)
    unused = said_by_doctor(settings)
    assert "bf16 is 2.5 times as fast, and its vectors are of fp32, so they stay" in unused.what
    assert 'precision = "bf16"' in unused.remedy
    assert said_by_doctor(asking_for(settings, "fp32")).severity is Severity.OK, "it was asked for"
    on(1.0)
    assert said_by_doctor(settings).severity is Severity.OK, "it is no quicker"
