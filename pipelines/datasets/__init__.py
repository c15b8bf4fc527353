"""Data at rest: stores, manifests, parts, annotations, ledger. Formats of docs/design.md, section 4."""

from pipelines.datasets.dataset import Dataset, aligned_parts, open_dataset

__all__ = ["Dataset", "aligned_parts", "open_dataset"]
