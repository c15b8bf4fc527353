"""One Chinese script for all: conversion by OpenCC (Apache-2.0), and the policies that ask for it.

Conversion works phrase by phrase and loses nothing but the script; still, the original is kept beside what was
converted, because one traditional character may stand for several simplified ones.
"""

from __future__ import annotations

import functools

from pipelines.errors import ConfigError

KEEP, ROUTE = "keep", "route"
# Target -> OpenCC's configuration: plain, or with the words of a region.
TARGETS = {"hans": "t2s", "hant": "s2t", "hans-cn": "tw2sp", "hant-tw": "s2twp", "hant-hk": "s2hk"}
POLICIES = (KEEP, *(f"convert:{target}" for target in TARGETS), ROUTE)


def check_policy(policy: str) -> str:
    """The policy, or `ConfigError` naming those there are."""
    if policy in POLICIES:
        return policy
    raise ConfigError(f"script policy {policy!r} is not known", key="script", mend=f"Use one of {', '.join(POLICIES)}.")


def convert(text: str, target: str) -> str:
    """The text in the script of `target` (hans, hant, hans-cn, hant-tw, hant-hk); lines stay lines."""
    return _converter(target).convert(text.replace("\0", "").encode("utf-8", "replace").decode("utf-8"))


def apply_policy(text: str, language: str, script: str | None, policy: str) -> tuple[str, str | None]:
    """(text to keep, the original where it was converted); only Chinese that is not in the wanted script changes.

    No policy drops a text for a few characters of the other script.
    """
    if not policy.startswith("convert:") or language not in ("zh", "yue"):
        return text, None
    target = policy.removeprefix("convert:")
    if script is None or script.lower() == target:
        return text, None
    converted = convert(text, target)
    return (converted, text) if converted != text else (text, None)


@functools.cache
def _converter(target: str):
    if target not in TARGETS:
        raise ConfigError(f"script {target!r} is not known", key="script", mend=f"Use one of {', '.join(TARGETS)}.")
    from opencc import OpenCC

    return OpenCC(TARGETS[target])
