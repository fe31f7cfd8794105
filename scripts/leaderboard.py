"""`domaintune leaderboard` in a clone: see src/domaintune/cli/leaderboard.py."""

from domaintune.cli.leaderboard import main

if __name__ == "__main__":
    main()
