"""Measures computed once, rules that read them, thresholds as data."""
