import uuid

import pytest

from jobs.runtime.context import Context
from jobs.runtime.recipe import Step, run_steps
from pipelines.datasets.store import open_store
from pipelines.errors import ConfigError


@pytest.mark.parametrize("settings", [{"lsh": {"num_bands": 20, "rows_per_band": 450}}, {"bucket_capp": 3}])
def test_a_fault_in_the_settings_of_the_last_job_is_found_before_the_first_begins(settings):
    context = Context(store=open_store(f"memory://{uuid.uuid4().hex}"))
    begun = []
    steps = [Step(job="extract_crawl", settings={"crawl": "tests/sample"}), Step(job="dedup_documents")]
    with pytest.raises(ConfigError):
        run_steps(context, steps, {"dedup_documents": settings}, report=begun.append)
    assert begun == [] and not list(context.store.list(""))
