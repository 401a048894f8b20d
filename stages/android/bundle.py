"""A runner with everything that it loads, as `android/build` lays it into a folder."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.android.device import Device, push_verified
from stages.android.results import RuntimeBuild
from stages.core.errors import UserError

DESCRIPTION = "bundle.json"
LIBRARY = "libonnxruntime.so"
RUNNER = "runner"


class Description(BaseModel):
    """What `bundle.json` says."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    runtime_build: RuntimeBuild
    abi: str
    launch: str  # the command that starts the runner, in the bundle's folder


@dataclass(frozen=True)
class Bundle:
    """A folder with runner and libraries, and its description."""

    folder: Path
    about: Description

    @property
    def files(self) -> list[Path]:
        """Everything that goes to the device."""
        return sorted(path for path in self.folder.iterdir() if path.is_file() and path.name != DESCRIPTION)


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle; UserError if it is not there or not whole."""
    try:
        about = Description.model_validate_json((folder / DESCRIPTION).read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{folder}: no runner there; `android/build {folder.name}` makes one") from error
    except ValidationError as error:
        raise UserError(f"{folder / DESCRIPTION}: not what `android/build` writes; build again") from error
    for name in (RUNNER, LIBRARY):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: not found; build again: android/build {about.runtime_build}")
    return Bundle(folder, about)


def install(bundle: Bundle, device: Device, folder: str) -> dict[str, str]:
    """Copy the bundle into a folder of the device and return the files' SHA-256 by name, each compared there."""
    hashes = {path.name: push_verified(device, path, f"{folder}/{path.name}") for path in bundle.files}
    programs = " ".join(shlex.quote(path.name) for path in bundle.files)
    changed = device.shell(f"cd {shlex.quote(folder)} && chmod 755 {programs}", 30.0)
    if changed.status:
        raise UserError(f"{device.label}: {folder}: programs not made executable ({changed.last_words})")
    return hashes
