"""`python -m orchestrator.cli` is the command `lossatlas`."""

from orchestrator.cli import main

main()
