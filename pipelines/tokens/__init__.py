"""Tokenizer training and encoding, token shards."""
