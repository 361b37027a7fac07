"""Errors: what they say, and what the command line ends with."""

import pytest

from freshvec.errors import (
    ConfigError,
    DatabaseError,
    DeviceError,
    EncodingError,
    FreshvecError,
    ModelError,
    NotFreshError,
    NotOwnedError,
    SchemaError,
    UnusableModelError,
    UsageError,
)


def test_an_error_names_operation_object_problem_and_remedy() -> None:
    error = FreshvecError("write", "sync 'a'", "the disk is full.\n", "Free some space.")
    assert str(error) == "cannot write sync 'a': the disk is full. Free some space."
    assert (error.operation, error.subject, error.remedy) == ("write", "sync 'a'", "Free some space.")


def test_without_a_remedy_it_ends_with_the_problem() -> None:
    assert str(FreshvecError("read", "table t", "it is gone")) == "cannot read table t: it is gone."


def test_only_what_is_said_to_be_retryable_is() -> None:
    assert not DatabaseError("a", "b", "c").retryable
    assert DatabaseError("a", "b", "c", retryable=True).retryable


def test_a_config_error_lists_every_fault_on_a_line_of_its_own() -> None:
    error = ConfigError("x.toml", ["first: wrong", "second: wrong too"])
    assert error.faults == ("first: wrong", "second: wrong too")
    assert str(error).splitlines() == [
        "cannot use the configuration x.toml:",
        "  - first: wrong",
        "  - second: wrong too",
    ]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DatabaseError, 1),
        (SchemaError, 1),
        (ModelError, 1),
        (UnusableModelError, 78),
        (DeviceError, 1),
        (EncodingError, 1),
        (NotOwnedError, 1),
        (NotFreshError, 3),
    ],
)
def test_exit_codes(kind: type[FreshvecError], code: int) -> None:
    assert kind("a", "b", "c").exit_code == code
    assert ConfigError("x.toml", ["fault"]).exit_code == 78
    assert UsageError("fault").exit_code == 2
