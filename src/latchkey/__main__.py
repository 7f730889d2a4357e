"""Runs the command line."""

from latchkey.bootstrap.commands import REFUSALS, Console
from latchkey.interfaces.cli import run


def main() -> None:
    run(Console(), REFUSALS)


if __name__ == "__main__":
    main()
