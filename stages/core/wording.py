"""How a wrong parameter is told: its key, what is wrong, and what is allowed."""

from typing import Any

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, parameters: type[BaseModel]) -> str:
    """Word the first of the errors that validating a file as `parameters` raised, in one line."""
    first, *others = error.errors()
    key = ".".join(str(part) for part in first["loc"]).removesuffix(".[key]") or "the file"
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        known = ", ".join(_known_keys(parameters, first["loc"][:-1]))
        return f"{key}: unknown key; allowed here: {known}{more}"
    if first["type"] == "missing":
        return f"{key}: missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    got = "" if first["type"] in ("value_error", "model_type") else f"{first['input']!r} is wrong: "
    return f"{key}: {got}{message}{more}"


def _known_keys(parameters: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Keys that the section at a location allows."""
    model: Any = parameters
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = _section_of(model.model_fields[str(part)].annotation)
    return list(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else []


def _section_of(annotation: Any) -> Any:
    """Return the section class inside an annotation such as `dict[str, Overrides]` or `Files | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = [_section_of(argument) for argument in getattr(annotation, "__args__", ())]
    return next((section for section in inner if section is not None), None)
