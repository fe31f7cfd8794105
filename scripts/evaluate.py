"""`domaintune evaluate` in a clone: see src/domaintune/cli/evaluate.py."""

from domaintune.cli.evaluate import main

if __name__ == "__main__":
    main()
