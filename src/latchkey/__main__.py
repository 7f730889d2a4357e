"""Runs the command line."""

from latchkey.bootstrap.commands import REFUSALS, Commands
from latchkey.interfaces.cli import run


def main() -> None:
    run(Commands(), REFUSALS)


if __name__ == "__main__":
    main()
