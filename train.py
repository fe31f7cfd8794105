"""python train.py model=gpt2 data=domain; the story of a run is in src/domaintune/cli/train.py."""

from domaintune.cli.train import main

if __name__ == "__main__":
    main()
