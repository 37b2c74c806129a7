"""One fine-tuning run of one framework, in the environment that the framework is installed in; started by peers.py.

    PYTHON benchmarks/peers_run.py PEER job.json OUT.json

Nothing of rbft is imported where the peer is another one. The run is made twice in one process: over a few rows first,
so that importing libraries is counted for nobody, then over all of them. What the model was really fed in the second
is noted at the door of each framework's training step: tokens, visual tokens, supervised tokens and losses.
"""

from __future__ import annotations

import gc
import importlib.machinery
import importlib.metadata
import json
import os
import resource
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Step = dict[str, Any]

_VERSIONS = ("torch", "transformers", "peft", "ms-swift", "llamafactory", "qwen-vl-utils", "decord", "av", "rbft")
_SYSTEM = "You are a helpful assistant."


def _seconds() -> float:
    """Processor time of this process and its children that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _resident(which: str) -> int:
    """Bytes of this process in memory now (VmRSS) or at most (VmHWM), as Linux tells them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))


def peak_of(act: Callable[[], object]) -> int:
    """Bytes that this process held at most while it acted, beyond those that it held before."""
    before = _resident("VmRSS")
    # from here on the highest is counted anew
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    act()
    return _resident("VmHWM") - before


def watch_trainer(steps: list[Step]) -> None:
    """Notes what each training step of transformers' Trainer is given, of whatever class derived from it."""
    import torch
    import transformers

    def ends_of(labels: torch.Tensor) -> torch.Tensor:
        """Place of the last supervised token of each row (B, 1)."""
        places = torch.arange(labels.shape[1]).expand_as(labels)
        return places.masked_fill(labels == -100, -1).amax(dim=1, keepdim=True)

    original = transformers.Trainer.training_step

    def training_step(self: Any, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        ids, labels = inputs["input_ids"], inputs["labels"]
        # the template's line break after the end of the answer is no part of it, and not all learn it
        ends = ids == model.config.text_config.eos_token_id
        labels[:, 1:][ends[:, :-1]] = -100
        places = torch.arange(labels.shape[1]).expand_as(labels)
        video = model.config.video_token_id
        known = {
            "rows": len(ids),
            # padding and what stands after the answer left out
            "tokens": int((inputs["attention_mask"] * (places <= ends_of(labels))).sum()),
            "visual": int((ids == video).sum()),
            "supervised": int((labels != -100).sum()),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }
        # counted before that line break was left out
        items = None if num_items_in_batch is None else torch.tensor(known["supervised"])
        loss = original(self, model, inputs, items)
        steps.append(known | {"loss": float(loss.detach())})
        return loss

    transformers.Trainer.training_step = training_step


def _conversation(row: dict[str, Any]) -> list[dict[str, str]]:
    """A row as both peers take it."""
    return [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": "<video>" + row["question"]},
        {"role": "assistant", "content": row["answer"]},
    ]


def run_swift(steps: list[Step]) -> Callable[[Job, Path], None]:
    """ms-swift: `swift sft`."""
    from swift.pipelines import sft_main
    from swift.template.templates.qwen import Qwen2VLTemplate

    watch_trainer(steps)

    def run(job: Job, folder: Path) -> None:
        # these stand in its code as numbers; the vocabulary of a small model has them elsewhere
        Qwen2VLTemplate.image_token_id, Qwen2VLTemplate.video_token_id = job["image_token"], job["video_token"]
        bounds = {"nframes": job["frames"], "min_pixels": job["min_pixels"], "max_pixels": job["max_pixels"]}
        rows = [
            {
                "messages": _conversation(row),
                "videos": [row["video"]],
                "chat_template_kwargs": bounds,
            }
            for row in job["rows"]
        ]
        data = folder / "rows.json"
        data.write_text(json.dumps(rows), encoding="utf-8")
        settings = {
            "model": job["model"],
            "model_type": "qwen2_5_vl",
            "template": "qwen2_5_vl",
            "dataset": str(data),
            "split_dataset_ratio": 0,
            "strict": True,
            "tuner_type": "lora",
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "target_modules": "all-linear",
            "freeze_vit": True,
            "freeze_aligner": True,
            "torch_dtype": "float32",
            "attn_impl": "sdpa",
            "num_train_epochs": job["epochs"],
            "per_device_train_batch_size": job["batch"],
            "gradient_accumulation_steps": 1,
            "gradient_checkpointing": False,
            "learning_rate": job["learning_rate"],
            "max_length": 4096,
            "dataloader_num_workers": 0,
            "dataset_num_proc": 1,
            "save_strategy": "no",
            "report_to": "none",
            "logging_steps": 1000,
            "use_cpu": True,
            "use_hf": True,  # the other hub is asked for its listing again and again where there is no network
            "output_dir": str(folder / "out"),
        }
        sft_main([part for key, value in settings.items() for part in (f"--{key}", str(value))])

    return run


def llamafactory_targets(layers: list[int] | None) -> str:
    """Which linear layers LLaMA-Factory gives adapters: all, or those of some layers of the language model."""
    if layers is None:
        return "all"
    attention, perceptron = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
    within = [*(f"self_attn.{name}" for name in attention), *(f"mlp.{name}" for name in perceptron)]
    return ",".join(f"language_model.layers.{layer}.{name}" for layer in layers for name in within)


def run_llamafactory(steps: list[Step]) -> Callable[[Job, Path], None]:
    """LLaMA-Factory: `llamafactory-cli train`."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        # imported by it for sounds only, and its releases lag behind those of torch
        module = types.ModuleType("torchaudio")
        module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
        sys.modules["torchaudio"] = module
    from llamafactory.train.tuner import run_exp

    watch_trainer(steps)

    def run(job: Job, folder: Path) -> None:
        rows = [
            {
                "messages": _conversation(row),
                "videos": [row["video"]],
            }
            for row in job["rows"]
        ]
        (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
        tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
        about = {
            "file_name": "rows.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "videos": "videos"},
            "tags": tags | {"system_tag": "system"},
        }
        (folder / "dataset_info.json").write_text(json.dumps({"rows": about}), encoding="utf-8")
        settings = {
            "model_name_or_path": job["model"],
            "stage": "sft",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_dropout": 0.05,
            "lora_target": llamafactory_targets(job["adapted_layers"]),
            "freeze_vision_tower": True,
            "freeze_multi_modal_projector": True,
            "dataset": "rows",
            "dataset_dir": str(folder),
            "template": "qwen2_vl",
            "cutoff_len": 4096,
            # as many frames a second as make every clip reach the most it may have
            "video_fps": 1000.0,
            "video_maxlen": job["frames"],
            "video_min_pixels": job["min_pixels"],
            # it shrinks frames before the processor does and rounds sides in between; the processor holds the bound
            "video_max_pixels": 4 * job["max_pixels"],
            "overwrite_cache": True,
            "preprocessing_num_workers": 1,
            "dataloader_num_workers": 0,
            "num_train_epochs": job["epochs"],
            "per_device_train_batch_size": job["batch"],
            "gradient_accumulation_steps": 1,
            "disable_gradient_checkpointing": True,
            "learning_rate": job["learning_rate"],
            "lr_scheduler_type": "cosine",
            "warmup_steps": 2,
            "flash_attn": "sdpa",
            "fp16": False,
            "bf16": False,
            "use_cpu": True,
            "save_strategy": "no",
            "report_to": "none",
            "logging_steps": 1000,
            "output_dir": str(folder / "out"),
        }
        run_exp(settings)

    return run


def run_rbft(steps: list[Step]) -> Callable[[Job, Path], None]:
    """The stage `classification` of `rbft fit`, from the base model on, with empty caches."""
    import yaml

    from rbft.__main__ import main
    from rbft.training.module import VLMFineTuner

    original, original_backward = VLMFineTuner.training_step, VLMFineTuner.backward

    def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
        begun = _seconds()
        loss = original(self, batch, batch_idx)
        passes = _seconds() - begun
        video = self.ready.base.config.video_token_id
        known = {
            "rows": len(batch),
            "tokens": sum(len(p.ids) + len(t) for p, t in zip(batch.prompts, batch.targets, strict=True)),
            "visual": sum(int((prompt.ids == video).sum()) for prompt in batch.prompts),
            "supervised": sum(map(len, batch.targets)),
            "trained": sum(p.numel() for p in self.ready.model.parameters() if p.requires_grad),
        }
        steps.append(known | {"loss": float(loss.detach()), "passes": passes})
        return loss

    def backward(self: Any, loss: Any, *args: Any, **kwargs: Any) -> None:
        begun = _seconds()
        original_backward(self, loss, *args, **kwargs)
        steps[-1]["passes"] += _seconds() - begun

    VLMFineTuner.training_step = training_step  # type: ignore[method-assign]
    VLMFineTuner.backward = backward  # type: ignore[method-assign]

    def run(job: Job, folder: Path) -> None:
        root = Path(job["rows"][0]["video"]).parent
        labels = sorted({row["answer"] for row in job["rows"]})
        videos = [(row["video"], row["answer"], "train") for row in job["rows"]]
        videos += [(video, label, "test") for video, label in job["apart"]]
        lines = ["path,label,split", *(f"{Path(video).name},{label},{split}" for video, label, split in videos)]
        table = root / f"{folder.name}.csv"
        table.write_text("\n".join(lines) + "\n", encoding="utf-8")
        experiment = {
            "data": {
                "root": str(root),
                "format": {"class_path": "Table", "init_args": {"file": table.name}},
                "val_shots": 0,
                "num_frames": job["frames"],
                "max_pixels": job["max_pixels"],
                "batch_size": job["batch"],
                "cache_dir": str(folder / "cache"),
            },
            "model": {
                "vlm": job["model"],
                "dtype": "float32",
                "tuning": {"class_path": "LoRA", "init_args": {"layers": job["layers"]}},
                "optim": {"lr": job["learning_rate"]},
                "prompts": {
                    "label_question": job["rows"][0]["question"],
                    "label_texts": {label: label for label in labels},
                },
            },
            "trainer": {"accelerator": "cpu", "devices": 1, "gradient_clip_val": 1.0, "max_epochs": job["epochs"]},
            "methods": {"train": ["classification"]},
            "stages": {"classification": {}},
        }
        config = folder / "job.yaml"
        config.write_text(yaml.safe_dump(experiment, sort_keys=False), encoding="utf-8")
        code = main(["fit", "--config", str(config), "--method", "train", "--run_root", str(folder / "runs")])
        if code != 0:
            raise RuntimeError(f"rbft fit ended with code {code}")

    return run


RUNNERS: dict[str, Callable[[list[Step]], Callable[[Job, Path], None]]] = {
    "rbft": run_rbft,
    "ms-swift": run_swift,
    "llamafactory": run_llamafactory,
}


def main(peer: str, job_file: str, out: str) -> int:
    """Make the run and write what was seen."""
    import torch

    torch.set_num_threads(1)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    steps: list[Step] = []
    run = RUNNERS[peer](steps)
    place = Path(out).parent / Path(out).stem
    for name in ("warm", "whole"):
        (place / name).mkdir(parents=True)
    run(job | {"rows": job["rows"][: job["warm_up"]], "epochs": 1}, place / "warm")
    steps.clear()
    gc.collect()
    begun, processor = time.monotonic(), _seconds()
    peak = peak_of(lambda: run(job, place / "whole"))
    found = {
        "processor_seconds": _seconds() - processor,
        "wall_seconds": time.monotonic() - begun,
        "peak_bytes": peak,
        "steps": steps,
        "versions": {name: _version(name) for name in _VERSIONS},
    }
    Path(out).write_text(json.dumps(found), encoding="utf-8")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    # this folder would hide modules of the same names
    sys.path[:] = [entry for entry in sys.path if Path(entry or os.curdir).resolve() != Path(__file__).resolve().parent]
    sys.exit(main(*sys.argv[1:]))
