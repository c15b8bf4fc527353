"""Plan, order, mixture, rows, stream. numpy in, numpy out; no torch."""
