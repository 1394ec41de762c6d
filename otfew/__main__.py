"""``python -m otfew COMMAND ...``, the same as ``otfew COMMAND ...``."""

from otfew.experiments.__main__ import main

if __name__ == "__main__":
    main()
