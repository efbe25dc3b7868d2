"""`python -m search.cli` is `ets`."""

from search.cli.main import main

main()
