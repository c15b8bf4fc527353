"""Data at rest: stores, manifests, parts, annotations, ledger. Formats of docs/design.md, section 4."""

from pipelines.datasets.dataset import Dataset, open_dataset

__all__ = ["Dataset", "open_dataset"]
