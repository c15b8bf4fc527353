"""`python -m cluster.cli`: the command without an installed script."""

from cluster.cli import main

main()
