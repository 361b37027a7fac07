"""Settings of the environment and of systemd's credentials, put over those of the file."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from freshvec.errors import meant

PREFIX = "FRESHVEC_"


class _Variables(EnvSettingsSource):
    """FRESHVEC_DAEMON_DEVICE and its like."""

    def __call__(self) -> dict[str, Any]:
        """The sections' settings; syncs are declared in the file alone."""
        return {name: value for name, value in super().__call__().items() if name != "sync"}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """A list is written as PATH is, nothing as JSON."""
        return value.split(os.pathsep) if get_origin(field.annotation) is tuple else value


class _Credentials(NestedSecretsSettingsSource):
    """systemd's credentials; an empty one is the unit's own, for a file that is not there."""

    @classmethod
    def load_secrets(cls, path: Path) -> dict[str, str]:
        """What each of them holds, by its name."""
        return {name: held for name, held in super().load_secrets(path).items() if held}


class FromOutside(BaseSettings):
    """Settings of which a variable wins over a credential, and that over what is given, as by the file."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        secrets_dir_missing="ok",
        # An error would show the values beside the one that is wrong.
        hide_input_in_errors=True,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where they come from, the most important first."""
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        credentials = _Credentials(file_secret_settings, secrets_dir=folder, secrets_prefix="")
        return _Variables(settings_cls), credentials, init_settings


class Keys(FromOutside, extra="ignore"):
    """What no file has: the key that requests must carry, in FRESHVEC_API_KEY or the credential `api_key`."""

    api_key: SecretStr = SecretStr("")


def credential_beside(file: Path) -> str:
    """What systemd would give the service as `database_url`, for who may read it in the file's folder.

    Empty where systemd gives credentials, and where there is none.
    """
    if "CREDENTIALS_DIRECTORY" in os.environ:
        return ""
    try:
        return (file.parent / "database_url").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def variable_of(place: Iterable[object]) -> str | None:
    """The variable that gives the setting at this place, where there is one."""
    name = PREFIX + "_".join(str(part) for part in place if isinstance(part, str)).upper()
    return name if name in os.environ else None


def misspelt(sections: Mapping[str, type[BaseModel]]) -> list[str]:
    """What is wrong with variables that are almost called as a setting of these is, and are none."""
    known = {f"{PREFIX}{name}_{key}".upper() for name in sections for key in sections[name].model_fields}
    tables = {f"{PREFIX}{name}".upper() for name in sections}
    seen = tuple(f"{name}_" for name in tables)  # pydantic looks at all of these
    given = [name for name in os.environ if name.startswith(PREFIX) and not name.startswith(seen)]
    near = {name: meant(name, known, cutoff=0.85) for name in given if name not in tables}
    return [f"{name} (environment): there is no such setting{why}" for name, why in near.items() if why]
