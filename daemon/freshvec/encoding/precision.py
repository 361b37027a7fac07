"""Which precision a model has where the settings leave it open: that of its vectors, else the quickest.

Vectors of bf16 are a class of their own. So what a processor can do must not decide what a table holds: the
next worker may have another processor, and would encode every row anew.
"""

from loguru import logger

from freshvec.config import Settings
from freshvec.db import connect, queries, translated
from freshvec.encoding import openvino_session, providers
from freshvec.encoding.trial import LEAST_COSINE, Trial, Trials
from freshvec.errors import DatabaseError, DeviceError, ModelError
from freshvec.models.artefact import Artefact, Precision

_SQL = queries("encoding/precision")
_ANEW = 'write precision = "fp32": every row is then encoded anew'


class Precisions:
    """The precision of each model of one configuration."""

    def __init__(self, settings: Settings, trials: Trials) -> None:
        self._url = settings.database.url
        self._daemon = settings.daemon
        self._trials = trials
        self.unasked: set[str] = set()  # models of which the database could not be asked

    def chosen(self, artefact: Artefact) -> Precision | None:
        """What is configured, or else bf16 where it is to be used; None for what its device does best.

        It says nothing of whether this machine can do it: `check` does.
        """
        if self._daemon.precision is not None:
            return self._daemon.precision
        try:
            there = self._there(artefact)
        except DatabaseError:  # which is waited for: until then it is what it was when it could be asked
            self.unasked.add(artefact.card.name)
            return "bf16" if self._trials.last(artefact.card.name) == "bf16" else None
        self.unasked.discard(artefact.card.name)
        if there is None and self._is_quicker(artefact):
            logger.info("{} runs in bf16, which its vectors will be of from now on", artefact.card.name)
            there = "bf16"
        self._trials.note(artefact.card.name, "bf16" if there == "bf16" else "fp32")
        return "bf16" if there == "bf16" else None

    def kin(self, artefact: Artefact, dimension: int | None = None) -> tuple[bytes, ...]:
        """Fingerprints of vectors that stay where the precision is left open, whatever this machine does."""
        if self._daemon.precision is not None:
            return ()
        return artefact.fingerprint("fp32", dimension), artefact.fingerprint("bf16", dimension)

    def check(self, artefact: Artefact, precision: Precision | None) -> None:
        """Raises DeviceError where this machine cannot do it, and ModelError where it is not near enough."""
        if precision != "bf16":
            return
        name = artefact.card.name
        refusal = openvino_session.refusal()
        if refusal is not None:
            whose = "" if self._daemon.precision else ", in which its vectors in the database are"
            remedy = f"{refusal.remedy} Or {_ANEW}."
            raise DeviceError("run", f"model {name!r} in bf16{whose}", refusal.problem, remedy)
        trial = self.trial(artefact)
        if trial is not None and not trial.passes:
            problem = (
                f"its worst cosine is {trial.worst_cosine:.5f} against fp32, which has to be {LEAST_COSINE}, "
                f"and {trial.worst_batched:.5f} in a batch against alone"
            )
            raise ModelError("run", f"model {name!r} in bf16", problem, f"{_ANEW.capitalize()}.")

    def trial(self, artefact: Artefact) -> Trial | None:
        """How bf16 did on this machine; None where it does not run."""
        if openvino_session.refusal() is not None:
            return None
        return self._trials.of(artefact, self._daemon.threads)

    def _there(self, artefact: Artefact) -> Precision | None:
        """The class of the vectors of most syncs with the model; None where the database has none."""
        with connect(self._url, "model") as connection, translated("read", "freshvec.sync"):
            (is_made,) = connection.execute(_SQL["is_made"]).fetchone() or (False,)
            asked = {"model": artefact.card.name}
            found = connection.execute(_SQL["fingerprints"], asked).fetchall() if is_made else []
        classes = artefact.classes()
        return next((classes[row[0]] for row in found if row[0] in classes), None)

    def _is_quicker(self, artefact: Artefact) -> bool:
        """Whether bf16 is the quickest here: no GPU encodes, and a trial says so."""
        if openvino_session.refusal() is not None or providers.choose(self._daemon.device) != "cpu":
            return False
        trial = self.trial(artefact)
        return trial is not None and trial.is_quicker
