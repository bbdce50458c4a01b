"""``python -m distcluster``: the command line."""

from distcluster.cli.main import main

if __name__ == "__main__":
    main()
