"""Overlap of documents with evaluation sets."""
