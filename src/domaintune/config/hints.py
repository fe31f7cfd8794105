"""What a person probably meant by a name that does not exist."""

import difflib
from collections.abc import Sequence

# How other programs call a setting, by the last part of its name; most of them are Hugging Face's.
ELSEWHERE = {
    "accumulation": "trainer.accumulate_grad_batches",
    "batch": "data.batch_size",
    "bf16": "trainer.precision=bf16-mixed",
    "bs": "data.batch_size",
    "ckpt_path": "name",
    "cutoff_len": "data.block_size",
    "dataset": "data.path",
    "dataset_name": "data.path",
    "dataset_text_field": "data.text_column",
    "debug": "trainer=debug",
    "early_stopping": "callbacks=early_stopping",
    "epochs": "trainer.max_epochs",
    "eval_steps": "trainer.val_check_interval",
    "evaluation_strategy": "trainer.val_check_interval",
    "fast_dev_run": "trainer=debug",
    "fp16": "trainer.precision=16-mixed",
    "gpus": "trainer.devices",
    "grad_accum": "trainer.accumulate_grad_batches",
    "gradient_accumulation_steps": "trainer.accumulate_grad_batches",
    "label_column": "data.columns.label",
    "learning_rate": "optim.lr",
    "logging_steps": "trainer.log_every_n_steps",
    "lora": "peft=lora",
    "lora_alpha": "peft.alpha",
    "lora_dropout": "peft.dropout",
    "lora_r": "peft.rank",
    "lora_rank": "peft.rank",
    "lr_scheduler_type": "scheduler",
    "max_grad_norm": "trainer.gradient_clip_val",
    "max_length": "data.block_size",
    "max_seq_len": "data.block_size",
    "max_seq_length": "data.block_size",
    "model_name": "model.checkpoint",
    "model_name_or_path": "model.checkpoint",
    "num_epochs": "trainer.max_epochs",
    "num_train_epochs": "trainer.max_epochs",
    "output": "name",
    "output_dir": "name",
    "packing": "data.batching",
    "patience": "callbacks.early_stopping.patience",
    "per_device_train_batch_size": "data.batch_size",
    "pretrained_model_name_or_path": "model.checkpoint",
    "r": "peft.rank",
    "random_seed": "seed",
    "report_to": "logger",
    "resume_from_checkpoint": "name",
    "run_name": "name",
    "save_steps": "checkpoint.every_steps",
    "seq_len": "data.block_size",
    "steps": "trainer.max_steps",
    "target_modules": "peft.targets",
    "test_file": "data.test_path",
    "text_field": "data.text_column",
    "train_batch_size": "data.batch_size",
    "train_file": "data.path",
    "train_path": "data.path",
    "use_lora": "peft=lora",
    "val_file": "data.val_path",
    "validation_file": "data.val_path",
    "warmup": "scheduler.warmup_steps",
    "warmup_ratio": "scheduler.warmup_steps",
    "wd": "optim.weight_decay",
    "workers": "data.num_workers",
}


def nearest(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean X?` where a known name resembles `word`, else an empty string."""
    plain = word.split(".")[-1].lower().replace("-", "_")
    meant = next((other for name, other in ELSEWHERE.items() if plain in (name, name.replace("_", ""))), "")
    setting = meant.partition("=")[0]
    if setting and any(f"{name}.".startswith(f"{setting}.") or setting.startswith(f"{name}.") for name in known):
        return f"; did you mean {meant}?"
    group, _, last = word.rpartition(".")
    same_end = [name for name in known if name.split(".")[-1] == last]
    beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == group}
    close = (
        same_end
        or [beside[end] for end in difflib.get_close_matches(last, beside, n=1, cutoff=0.6)]
        or difflib.get_close_matches(word, known, n=1, cutoff=0.75 if group else 0.5)
    )
    return f"; did you mean {close[0]}?" if close else ""
