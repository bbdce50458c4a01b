"""The command line: the script ``distcluster``, and ``python -m distcluster``."""

import gc


def main() -> None:
    """Run it."""
    from distcluster.cli.main import main as command_line  # not at the top: what a script imports, its workers do, too

    try:
        command_line()
    finally:
        gc.freeze()  # the process ends: to look for what nobody needs takes Python most of a second


if __name__ == "__main__":
    main()
