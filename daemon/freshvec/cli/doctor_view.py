"""What the examination shows: faults first as they are found, and a line at the end."""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from freshvec import logs
from freshvec.doctor.finding import Finding, Severity

_WIDTH = 78
_LABELS = {Severity.OK: "ok", Severity.WARNING: "warning", Severity.FAULT: "FAULT"}
_INDENT = " " * 10


def text(finding: Finding) -> str:
    """A finding in lines of at most 78 columns."""
    finding = _without_secrets(finding)
    lines = _wrapped(f"{_LABELS[finding.severity]:<8}  {finding.subject}: {finding.what}", "")
    if finding.why:
        lines += _wrapped(f"why: {finding.why}", _INDENT)
    if finding.remedy:
        lines += _wrapped(f"mend: {finding.remedy}", _INDENT)
    return "\n".join(lines)


def summary(findings: Sequence[Finding]) -> str:
    """How many there are of each kind."""
    counts = Counter(finding.severity for finding in findings)
    faults, warnings = counts[Severity.FAULT], counts[Severity.WARNING]
    parts = [
        f"{faults} fault{'' if faults == 1 else 's'}",
        f"{warnings} warning{'' if warnings == 1 else 's'}",
    ]
    return f"{', '.join(parts)}, {counts[Severity.OK]} in order"


def as_json(findings: Sequence[Finding]) -> str:
    """One document."""
    counts = Counter(finding.severity for finding in findings)
    shown = [
        _without_secrets(finding).__dict__ | {"severity": finding.severity.name.lower()}
        for finding in findings
    ]
    document = {
        "faults": counts[Severity.FAULT],
        "warnings": counts[Severity.WARNING],
        "findings": shown,
    }
    return json.dumps(document, indent=2)


def _without_secrets(finding: Finding) -> Finding:
    """What a driver or a library says of a connection may have parts of its URL in it."""
    return replace(
        finding,
        what=logs.redact(finding.what),
        why=logs.redact(finding.why),
        remedy=logs.redact(finding.remedy),
    )


def _many(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
