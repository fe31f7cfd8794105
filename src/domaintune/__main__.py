"""python -m domaintune: the `domaintune` command."""

from domaintune.cli.main import main

if __name__ == "__main__":
    main()
