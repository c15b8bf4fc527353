from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from cluster.cli import explain
from pipelines.datasets.store import FolderStore
from pipelines.errors import InputError
from tests.unit.training.test_stream import plan_for
from tests.unit.training.token_shards import documents_of, write_tokens
from training.data.provenance import Provenance
from training.data.stream import RowSource
from training.run_log import RunLog


@pytest.fixture
def store(tmp_path):
    store = FolderStore(str(tmp_path))
    cells = {
        "en.web": [documents_of(1, documents=60, vocab_size=500), documents_of(2, documents=9, vocab_size=500)],
        "zh.web": [documents_of(3, documents=30, vocab_size=500)],
    }
    manifest = write_tokens(store, cells, vocab_size=500)
    RunLog(store, "tiny").write_plan(plan_for(manifest), {"seed": 1})
    return store


def test_each_token_of_a_row_is_of_the_document_that_is_named(store):
    plan = RunLog(store, "tiny").state.plan
    found, source = Provenance(store, plan), RowSource(store, plan)
    for position in range(0, 60, 5):
        row, documents = source.row(position), found.documents(position)
        assert sum(document.tokens for document in documents) == len(row.ids)
        assert [d.first for d in documents] == np.cumsum([0, *(d.tokens for d in documents)])[:-1].tolist()
        starts = [document.first for document in documents]
        assert np.flatnonzero(np.diff(row.documents, prepend=-1)).tolist() == starts
        for document in documents:
            places = list(found.steps_of(document.id))
            step = found.batches.step_of(position) + 1
            assert {"cell": document.cell, "position": position, "step": step} in places
    with pytest.raises(InputError, match="steps 1 to 12, not 13"):
        found.positions(13)


def test_a_step_a_row_and_a_document_are_explained(store):
    def call(*arguments: str) -> str:
        done = CliRunner().invoke(explain.command, [*arguments, "--root", store.location], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    text = call("tiny@3")
    assert "positions 10 to 14" in text
    assert max(map(len, text.splitlines())) <= 80
    rows = json.loads(call("tiny@3", "--json"))["rows"]
    assert [row["position"] for row in rows] == [10, 11, 12, 13, 14]
    document = rows[2]["documents"][0]["id"]
    told = json.loads(call(document, "--json"))["runs"]
    assert told[0]["run"] == "tiny"
    assert 3 in told[0]["steps"]
    assert told[0]["seen"] == []
