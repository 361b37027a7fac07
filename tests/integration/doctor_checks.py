"""What the tests of `freshvec doctor` share: one check at a time, and the worst that it finds."""

from freshvec.config import Settings
from freshvec.db import connect
from freshvec.doctor.finding import Finding, Severity
from freshvec.doctor.place import Check, Place

OK, WARNING, FAULT = Severity.OK, Severity.WARNING, Severity.FAULT


def looked(check: Check, settings: Settings) -> list[Finding]:
    """What one check finds."""
    with connect(settings.database.url, "test") as connection:
        return list(check(Place(settings, None, connection)))


def worst(found: list[Finding]) -> Finding:
    return max(found, key=lambda finding: finding.severity)
