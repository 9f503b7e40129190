"""`python -m calid` is `calid`."""

from calid.cli.main import main

main()
