"""The command line: the script ``distcluster``, and ``python -m distcluster``."""

import gc


def main() -> None:
    """Run it."""
    gc.disable()  # what is imported stays: to look for garbage in it takes Python a tenth of a short command
    from distcluster.cli.main import main as command_line  # not at the top: what a script imports, its workers do, too

    gc.freeze()
    gc.enable()
    try:
        command_line()
    finally:
        gc.freeze()  # the process ends: to look for what nobody needs takes Python most of a second


if __name__ == "__main__":
    main()
