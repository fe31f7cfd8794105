"""`domaintune make_tokenizer` in a clone: see src/domaintune/cli/make_tokenizer.py."""

from domaintune.cli.make_tokenizer import main

if __name__ == "__main__":
    main()
