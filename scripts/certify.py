"""`domaintune certify` in a clone: see src/domaintune/cli/certify.py."""

from domaintune.cli.certify import main

if __name__ == "__main__":
    main()
