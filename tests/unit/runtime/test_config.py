from __future__ import annotations

from dataclasses import dataclass

import pytest

from jobs.runtime.config import (
    config_rows,
    content_config,
    parse_config,
    parse_set,
    read_config_file,
    setting,
    stage_id,
)
from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Lsh:
    __pydantic_config__ = {"extra": "forbid"}
    num_bands: int = setting(32, "bands")
    rows_per_band: int = setting(8, "hashes in a band")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    __pydantic_config__ = {"extra": "forbid"}
    threshold: float = setting(0.8, "Jaccard, inclusive")
    actors: int = setting(2, "processes", content=False)
    names: tuple[str, ...] = setting(("zh", "en"), "languages")
    lsh: Lsh = setting(factory=Lsh)


def test_later_sources_win_and_origins_are_told():
    sources = [("recipe", {"lsh": {"num_bands": 10}, "threshold": 0.7}), parse_set("lsh.num_bands=20")]
    config, origins = parse_config(Config, sources)
    assert (config.lsh.num_bands, config.threshold, config.lsh.rows_per_band) == (20, 0.7, 8)
    rows = {r["key"]: r for r in config_rows(config, origins)}
    assert rows["lsh.num_bands"]["origin"] == "--set lsh.num_bands=20"
    assert rows["threshold"]["origin"] == "recipe" and rows["actors"]["origin"] == "default"
    assert rows["lsh.rows_per_band"]["doc"] == "hashes in a band"


def test_all_faults_are_told_at_once_with_the_nearest_key():
    with pytest.raises(ConfigError) as e:
        parse_config(Config, [("file.yaml", {"lsh": {"num_band": 1}, "treshold": 2, "actors": "many"})])
    text = str(e.value)
    assert "lsh.num_band: unknown key; did you mean lsh.num_bands?" in text
    assert "treshold: unknown key; did you mean threshold?" in text
    assert "actors" in text and "'many'" in text and "file.yaml" in text


@pytest.mark.parametrize("text", ["lsh.num_bands", "=3"])
def test_a_setting_without_key_or_value_is_refused(text):
    with pytest.raises(ConfigError):
        parse_set(text)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        read_config_file(path)
    with pytest.raises(ConfigError):
        read_config_file(tmp_path / "absent.yaml")


def test_the_stage_id_changes_with_content_and_not_with_parallelism():
    base, _ = parse_config(Config, [])
    more, _ = parse_config(Config, [("x", {"actors": 7})])
    other, _ = parse_config(Config, [("x", {"lsh": {"rows_per_band": 4}})])
    assert stage_id("j", 1, base) == stage_id("j", 1, more)
    assert (
        len(
            {
                stage_id("j", 1, base),
                stage_id("j", 2, base),
                stage_id("j", 1, other),
                stage_id("j", 1, base, {"m": "x"}),
            }
        )
        == 4
    )
    assert "actors" not in content_config(base) and content_config(base)["names"] == ["zh", "en"]
