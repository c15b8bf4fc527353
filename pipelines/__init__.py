"""What happens to data: pure functions on records and Arrow batches. No engine, no torch, no command line."""
