"""`domaintune prune` in a clone: see src/domaintune/cli/prune.py."""

from domaintune.cli.prune import main

if __name__ == "__main__":
    main()
