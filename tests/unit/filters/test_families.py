"""Adding a filter is one file and one row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.filters.families import read_families

CHECKOUT = Path(__file__).resolve().parents[3]
FAMILY = '''
"""Questions, over sentences."""

from pipelines.filters.facts import ratio

def question_fraction(facts):
    asked = [text.as_py().count("?") for text in facts.raw]
    import numpy as np
    return ratio(np.array(asked, float), facts["sentences"])

MEASURES = {"house.question_fraction": question_fraction}
'''
ROW = (
    "  - {reason: questions, column: house.question_fraction, side: max, spaced: 0.5, unspaced: 0.5,"
    ' action: drop, source: "our own"}'
)
PROGRAM = """
import random
import sys
import pyarrow as pa
import pipelines.filters.families as families
families.__path__.append(sys.argv[1])
from importlib.resources import files
from tests.made_crawl import sentences
from pipelines.filters.measures import measure
from pipelines.filters.rules import first_broken_rule, parse_rules
rules = parse_rules(files("pipelines.filters").joinpath("thresholds.yaml").read_text("utf-8") + "\\n" + sys.argv[2])
good = " ".join(sentences(random.Random(3), "en", 14))
asked = good.replace(".", "?")
table = measure(pa.array([good, asked]))
print(first_broken_rule(table, pa.array(["en", "en"]), rules)["reason"].to_pylist())
"""


def test_a_file_in_the_folder_and_a_row_make_a_filter(tmp_path):
    (tmp_path / "house.py").write_text(FAMILY)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), ROW], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[None, 'questions']", done.stdout + done.stderr


@pytest.mark.parametrize("name", list(read_families()))
def test_every_measure_says_its_family_and_its_score(name):
    family, score = name.split(".")
    assert family.isidentifier() and score.isidentifier()
