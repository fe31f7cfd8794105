"""`domaintune predict` in a clone: see src/domaintune/cli/predict.py."""

from domaintune.cli.predict import main

if __name__ == "__main__":
    main()
