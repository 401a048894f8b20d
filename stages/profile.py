"""Writes params.yaml from `profiles/`: the complete `tiny` with overlays of only what differs laid over it."""

import io
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core import entry
from stages.core.artifacts import atomic_path
from stages.core.errors import UserError
from stages.core.params import PARAMS_FILE, validate

PROFILES = Path("profiles")
BASE = "tiny"


def render(names: list[str]) -> str:
    """Text of params.yaml for `tiny` with the named overlays on top, in order, comments kept.

    Raises UserError for an unknown profile and for an overlay with a key or value that the parameters do not allow.
    """
    text = _read(BASE)
    overlays = [name for name in names if name != BASE]
    if not overlays:
        return text  # byte-identical to the committed file
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    merged = yaml.load(text)
    for name in overlays:
        overlay(merged, YAML().load(_read(name)) or {})
    merged["profile"] = "+".join(overlays)
    stream = io.StringIO()
    yaml.dump(merged, stream)
    validate(YAML(typ="safe", pure=True).load(stream.getvalue()), PROFILES / f"{overlays[-1]}.yaml")
    return stream.getvalue()


def _read(name: str) -> str:
    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PROFILES.glob("*.yaml")))
        raise UserError(f"{path}: no such profile; there are: {known}")
    return path.read_text(encoding="utf-8")


def overlay(target: Any, changes: Any) -> None:
    """Replace values in place; mappings are merged, except that `{}` empties one (an evaluation grid, for example)."""
    for key, value in changes.items():
        if isinstance(value, dict) and value and isinstance(target.get(key), dict):
            overlay(target[key], value)
        else:
            target[key] = value


def main() -> None:
    """Write params.yaml, or list the profiles if none is named."""
    if not sys.argv[1:]:
        for path in sorted(PROFILES.glob("*.yaml")):
            print(f"{path.stem:14}{path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")
        return
    text = render(sys.argv[1:])
    with atomic_path(PARAMS_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"params.yaml: profile {'+'.join(sys.argv[1:])}; `make repro` runs it")


if __name__ == "__main__":
    entry.run(main)
