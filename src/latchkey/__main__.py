"""The entry point of the `latchkey` command."""

from latchkey.bootstrap.commands import EXPECTED_ERRORS, Commands
from latchkey.interfaces.cli import run


def main() -> None:
    """Run the command line and exit."""
    run(Commands(), EXPECTED_ERRORS)


if __name__ == "__main__":
    main()
