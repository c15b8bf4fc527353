"""Configs: frozen dataclasses, parsed once at the border, with a description a field and the origin of each value.

Sources, later wins: defaults, recipe, `--config FILE.yaml`, `--set a.b=c`. Unknown keys are refused with the
nearest known one; all errors are told at once.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pipelines.errors import ConfigError

C = TypeVar("C")


def setting(default: Any = dataclasses.MISSING, doc: str = "", *, content: bool = True, factory: Any = None) -> Any:
    """A config field. `content=False`: it changes how the work is done, not what comes out, so no key holds it."""
    metadata = {"doc": doc, "content": content}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_config(kind: type[C], sources: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[C, dict[str, str]]:
    """The config, and for each dotted key where its value came from; ConfigError with every fault found."""
    from pydantic import TypeAdapter, ValidationError

    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, values in sources:
        for path, value in _flatten(values):
            _assign(merged, path, value, origin)
            origins[".".join(path)] = origin
    try:
        config = TypeAdapter(kind).validate_python(merged)
    except ValidationError as e:
        raise ConfigError(
            _faults(kind, e.errors(), origins), mend=f"`gristmill config show {_job(kind)}` lists all keys"
        ) from None
    return config, origins


def parse_set(text: str) -> tuple[str, Mapping[str, Any]]:
    """`lsh.num_bands=20` as a source; the value is read as YAML."""
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text!r} is not KEY=VALUE", mend="for example --set lsh.num_bands=20")
    nested: Any = yaml.safe_load(value) if value else ""
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return f"--set {text}", nested


def read_config_file(path: Path) -> tuple[str, Mapping[str, Any]]:
    """A YAML file as a source."""
    import yaml

    try:
        value = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from None
    except yaml.YAMLError as e:
        raise ConfigError(f"{path} is no YAML: {e}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} holds no mapping of settings")
    return str(path), value


def config_rows(config: Any, origins: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every key with value, origin and description, for `gristmill config show`."""
    return [
        {
            "key": path,
            "value": value,
            "origin": origins.get(path, "default"),
            "doc": field.metadata.get("doc", ""),
        }
        for path, field, value in _leaves(config)
    ]


def content_config(config: Any) -> dict[str, Any]:
    """The values that decide what comes out, dotted keys."""
    return {path: value for path, field, value in _leaves(config) if field.metadata.get("content", True)}


def stage_id(job: str, version: int, config: Any, artifacts: Mapping[str, str] | None = None) -> str:
    """32 hex of job, hand-kept stage version, content-affecting config and artifact hashes; no inputs, no host.

    `config` is a config dataclass or a plain mapping.
    """
    content = dict(config) if isinstance(config, Mapping) else content_config(config)
    body = {"job": job, "version": version, "config": content, "artifacts": dict(artifacts or {})}
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _leaves(config: Any, prefix: str = "", content: bool = True) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field, list(value) if isinstance(value, tuple) else value


def _flatten(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, (*path, str(key)))
        else:
            yield (*path, str(key)), value


def _assign(merged: dict[str, Any], path: tuple[str, ...], value: Any, origin: str) -> None:
    for part in path[:-1]:
        merged = merged.setdefault(part, {})
        if not isinstance(merged, dict):
            raise ConfigError(f"{origin}: {'.'.join(path)}: {part} is a value, not a group of settings")
    merged[path[-1]] = value


def _known(kind: type[Any], prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner):
            yield from _known(inner, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}"


def _faults(kind: type[Any], errors: Sequence[Any], origins: Mapping[str, str]) -> str:
    known = list(_known(kind))
    lines = []
    for error in errors:
        key = ".".join(str(p) for p in error["loc"])
        origin = next((o for k, o in origins.items() if k == key or k.startswith(key + ".")), "")
        if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            near = difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            lines.append(f"{key}: unknown key{hint}" + (f"  [{origin}]" if origin else ""))
        else:
            lines.append(
                f"{key or kind.__name__}: {error['msg']}, found {error.get('input')!r}"
                + (f"  [{origin}]" if origin else "")
            )
    return f"{_job(kind)}: " + ("\n  ".join(["", *lines]) if len(lines) > 1 else lines[0])


def _job(kind: type[Any]) -> str:
    return kind.__module__.rpartition(".")[2]
