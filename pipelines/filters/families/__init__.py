"""Measures by family, one file each: a file that lies here and has MEASURES is read, nothing else to register.

`MEASURES` maps a column name, `family.score`, to a function of `Facts` that gives (n,) float64.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from pipelines.filters.facts import Facts

Measure = Callable[["Facts"], "np.ndarray"]


@cache
def read_families() -> Mapping[str, Measure]:
    """Every measure of every file of this folder, files by name; ConfigError for a column given twice."""
    found: dict[str, Measure] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        for name, function in importlib.import_module(f"{__name__}.{module.name}").MEASURES.items():
            if name in found or name.count(".") != 1:
                problem = "is given twice" if name in found else "is not called family.score"
                raise ConfigError(f"The measure {name!r} {problem}.", key=name, mend="Name it family.score, once.")
            found[name] = function
    return found
