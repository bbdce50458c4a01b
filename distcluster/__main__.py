"""``python -m distcluster``: the command line."""

from distcluster.cli import main

if __name__ == "__main__":
    main()
