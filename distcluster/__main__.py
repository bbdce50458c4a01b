"""The command line: the script ``distcluster``, and ``python -m distcluster``."""


def main() -> None:
    """Run it."""
    from distcluster.cli.main import main as command_line  # not at the top: what a script imports, its workers do, too

    command_line()


if __name__ == "__main__":
    main()
