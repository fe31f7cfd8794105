"""`domaintune generate` in a clone: see src/domaintune/cli/generate.py."""

from domaintune.cli.generate import main

if __name__ == "__main__":
    main()
