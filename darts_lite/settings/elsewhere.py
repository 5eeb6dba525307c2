"""Words of other programs for settings that there are here, and for some that there are not: too far from ours to be found by spelling."""

from collections.abc import Collection

# Our key, or keys where they may mean several; those that a verb has are suggested.
OURS: dict[str, tuple[str, ...]] = {
    their: ours
    for theirs, ours in {
        "layers num_layers n_layers depth num_cells": ("cells",),
        "init_channels init_ch num_channels width filters": ("channels",),
        "num_nodes n_nodes intermediate_nodes": ("space.nodes",),
        "steps num_steps": ("epochs", "space.nodes"),
        "max_steps max_epochs num_epochs n_epochs iterations iters max_iter": ("epochs",),
        "learning_rate initial_lr base_lr w_lr weights_lr": ("lr",),
        "learning_rate_min min_lr lr_end eta_min w_lr_min": ("lr_min",),
        "arch_learning_rate arch_lr alpha_learning_rate": ("alpha_lr",),
        "arch_weight_decay arch_wd": ("alpha_weight_decay",),
        "wd l2 w_weight_decay": ("weight_decay",),
        "grad_clip clip clip_grad max_norm max_grad_norm w_grad_clip": ("gradient_clip",),
        "train_portion val_split validation_split valid_ratio": ("train_fraction",),
        "drop_path_prob drop_path_rate drop_prob": ("drop_path",),
        "auxiliary aux aux_weight": ("auxiliary_weight",),
        "label_smooth smoothing": ("label_smoothing",),
        "cutout_length": ("cutout",),
        "unrolled second_order order algorithm": ("method",),
        "scheduler lr_scheduler lr_schedule": ("schedule",),
        "ema_decay model_ema": ("ema",),
        "arch architecture model_arch arch_path": ("genotype",),
        "weights pretrained load_weights": ("init", "run"),
        "load load_from ckpt load_checkpoint": ("init", "resume", "run"),
        "checkpoint": ("run", "init", "resume"),
        "resume_from restore continue": ("resume",),
        "model model_path": ("run", "genotype", "init"),
        "folder": ("run",),
        "data data_dir data_path data_root": ("dataset", "dataset.path", "dataset.root"),
        "img_size imgsz input_size resolution": ("dataset.image_size",),
        "crop_pct center_crop": ("dataset.test_center",),
        "hflip horizontal_flip augment": ("dataset.flip",),
        "num_workers n_workers": ("dataset.workers",),
        "ops operations primitives candidate_ops": ("space.candidates",),
        "batch bs batchsize train_batch_size": ("batch_size",),
        "random_seed manual_seed": ("seed",),
        "repeats trials num_seeds n_seeds": ("seeds", "restarts"),
        "gpu gpus gpu_id cuda": ("device",),
        "amp fp16 bf16 half mixed_precision": ("precision",),
        "output out output_dir outdir save save_dir log_dir logdir": ("run_dir",),
        "report_freq print_freq log_freq log_interval": ("log_every",),
        "save_every save_freq save_interval checkpoint_freq": ("checkpoint_steps", "checkpoint_minutes"),
        "val_every eval_every eval_freq test_freq": ("test_every",),
        "config cfg": ("experiment",),
    }.items()
    for their in theirs.split()
}

# What there is instead.
MISSING: dict[str, tuple[str, str]] = {
    their: said
    for theirs, said in {
        "patience early_stopping early_stop": (
            "there is no early stopping",
            "leave it out; a search keeps the architecture of every epoch: python -m darts_lite.discretize epoch=N",
        ),
        "max_hours max_time time_limit max_minutes timeout": (
            "there is no limit of time",
            "leave it out; `timeout 8h <command>` stops a run at a checkpoint, and resume=<run folder> goes on",
        ),
        "class_weights class_weight pos_weight": (
            "there are no weights of classes",
            "leave it out; images count alike",
        ),
        "mixup cutmix autoaugment randaugment auto_augment": (
            "there is no such augmentation",
            "leave it out; there are dataset.crop, dataset.flip, dataset.color_jitter and cutout",
        ),
        "num_classes n_classes classes": ("it is not set", "leave it out; the data say how many classes there are"),
        "optimizer optim": (
            "the optimizers are not set",
            "leave it out; SGD moves the weights (lr, momentum, weight_decay), Adam the alphas (alpha_lr, alpha_betas)",
        ),
        "ddp distributed world_size num_gpus n_gpus": ("a run has one device", "give device, e.g. device=cuda:1"),
        "wandb mlflow tensorboard": ("it is not set", "leave it out; every run writes tensorboard/ in its folder"),
    }.items()
    for their in theirs.split()
}


def spelled(key: str) -> str:
    """Key or option as the two tables spell it: `--Arch-LR` becomes `arch_lr`."""
    return key.lstrip("-").lower().replace("-", "_")


def ours(key: str, known: Collection[str]) -> list[str]:
    """Names among `known` that another program's word may mean."""
    return [name for name in OURS.get(spelled(key), ()) if name in known]


def or_words(names: Collection[str]) -> str:
    """Beginning of a fix, `did you mean 'init' or 'resume'? `; empty without names."""
    return f"did you mean {' or '.join(map(repr, names))}? " if names else ""
