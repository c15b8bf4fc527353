"""What must not be kept: requests as hashes, tombstones in their place, and the proof."""
