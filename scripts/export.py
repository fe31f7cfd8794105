"""`domaintune export` in a clone: see src/domaintune/cli/export.py."""

from domaintune.cli.export import main

if __name__ == "__main__":
    main()
