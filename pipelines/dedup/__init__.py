"""Normal form, shingles, signatures, bands, verification, components, survivors."""
