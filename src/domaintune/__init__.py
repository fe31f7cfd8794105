"""Fine-tune language models on your own text: Lightning runs the loop, Hydra composes the run."""

__version__ = "0.1.0"
