"""`python -m ddpm`, and the command `ddpm`: Ctrl-C before all modules are read is no traceback."""

import signal
import sys


def main() -> int:
    try:
        from .cli.main import main as command

        return command()
    except KeyboardInterrupt:
        return 130
    finally:  # nor is one while Python ends
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
