"""RB-FT as separate runs of transformers: write, two runs of its Trainer, then generate and parse.

As the authors of the method work: every epoch decodes, processes and encodes every clip again, the hinted question
stays in the training prompt, weights pass from run to run as files, and the test generates an answer clip by clip and
looks for a label in it. Decoding stops after the last frame wanted and converts only the frames wanted. Nothing of
rbft's model code is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments

LABEL_QUESTION = "Which event does this video show? Answer with the label only."
HINTED_QUESTION = "The video shows {label}. Explain step by step what happens, then name the label."
CONCLUSION = "Classification: {label}"
# What rbft calls the linear layers of the language model, in the regular expression of PEFT.
_LANGUAGE = r".*\.(language_model|text_model)\..*{layer}\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class Job:
    """What is done, the same for both ways.

    Args:
        model: Folder of the model.
        train: Videos to train on, with their labels.
        test: Videos to classify, with their labels.
        labels: All labels.
        num_frames: Of a clip.
        new_tokens: Most tokens of a rationale.
        label_tokens: Most tokens of a label.
        epochs: Of each training stage.
        batch: Clips of a step.
        learning_rate: Of both stages.
        layers: Upper layers of the language model that get adapters; None: all.
    """

    model: Path
    train: tuple[tuple[Path, str], ...]
    test: tuple[tuple[Path, str], ...]
    labels: tuple[str, ...]
    num_frames: int = 8
    new_tokens: int = 48
    label_tokens: int = 8
    epochs: int = 2
    batch: int = 2
    learning_rate: float = 1e-4
    layers: int | None = None


@dataclass(frozen=True)
class Video:
    """Decoded frames (T, H, W, 3) and what a processor wants to know of them."""

    frames: np.ndarray
    metadata: dict[str, Any]


def read_video(path: Path, num_frames: int) -> Video:
    """Frames from the middles of equal parts of a video, in the size of the video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        total, fps = stream.frames, float(stream.average_rate or 0)
        wanted = [(2 * i + 1) * total // (2 * num_frames) for i in range(num_frames)]
        found: dict[int, np.ndarray] = {}
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                found[number] = frame.to_ndarray(format="rgb24")
            if number == wanted[-1]:
                break
    frames = np.stack([found[number] for number in wanted])
    about = {"total_num_frames": total, "fps": fps, "duration": total / fps, "frames_indices": wanted}
    return Video(frames, about)


def render(processor: Any, question: str, answer: str | None = None) -> str:
    """A conversation as text."""
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    return text


def process(processor: Any, texts: Sequence[str], videos: Sequence[Video]) -> dict[str, Any]:
    """What the model is fed."""
    return dict(
        processor(
            text=list(texts),
            videos=[[torch.from_numpy(video.frames).permute(0, 3, 1, 2)] for video in videos],
            video_metadata=[[video.metadata] for video in videos],
            do_sample_frames=False,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
    )


@dataclass(frozen=True)
class Conversation:
    """A question about a video with its answer."""

    path: Path
    question: str
    answer: str


class Conversations(Dataset[tuple[Conversation, Video]]):
    """Decodes a video whenever its row is drawn.

    Args:
        rows: The conversations.
        num_frames: Of a clip.
    """

    def __init__(self, rows: Sequence[Conversation], num_frames: int) -> None:
        self.rows, self.num_frames = tuple(rows), num_frames

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Conversation, Video]:
        return self.rows[index], read_video(self.rows[index].path, self.num_frames)


@dataclass(frozen=True)
class Collator:
    """Rows as a batch; only the answers' tokens have labels.

    Args:
        processor: The model's.
    """

    processor: Any

    def __call__(self, rows: Sequence[tuple[Conversation, Video]]) -> dict[str, Any]:
        """The batch."""
        whole = [render(self.processor, row.question, row.answer) for row, _ in rows]
        batch = process(self.processor, whole, [video for _, video in rows])
        labels = batch["input_ids"].clone()
        for number, ((row, _), text) in enumerate(zip(rows, whole, strict=True)):
            after = text[len(render(self.processor, row.question)) :]
            answer = self.processor.tokenizer(after, add_special_tokens=False)["input_ids"]
            length = int(batch["attention_mask"][number].sum())
            labels[number, : length - len(answer)] = -100
            labels[number, length:] = -100
        return batch | {"labels": labels}


def answer(model: Any, processor: Any, path: Path, question: str, job: Job, most_tokens: int) -> str:
    """What the model writes about a video, greedily."""
    inputs = process(processor, [render(processor, question)], [read_video(path, job.num_frames)])
    with torch.no_grad():
        written = model.generate(**inputs, do_sample=False, max_new_tokens=most_tokens)
    text: str = processor.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return text.strip()


def adapters(model: Any, layers: int | None) -> LoraConfig:
    """New adapters in the linear layers of the language model, in its upper `layers` or all."""
    total = model.config.get_text_config().num_hidden_layers
    upper = "" if layers is None else rf"layers\.({'|'.join(map(str, range(total - layers, total)))})\..*"
    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.05, target_modules=_LANGUAGE.format(layer=upper))


def train(job: Job, start: Path | None, rows: Sequence[Conversation], folder: Path) -> Path:
    """A run of the Trainer over new adapters, or those in `start`; leaves adapters in `folder`."""
    model: Any = AutoModelForImageTextToText.from_pretrained(job.model, dtype=torch.float32)
    if start is None:
        tuned: Any = get_peft_model(model, adapters(model, job.layers))
    else:
        tuned = PeftModel.from_pretrained(model, str(start), is_trainable=True)
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=job.epochs,
        per_device_train_batch_size=job.batch,
        learning_rate=job.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.03,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        remove_unused_columns=False,
        use_cpu=True,
        seed=0,
    )
    collator = Collator(AutoProcessor.from_pretrained(job.model))
    trainer = Trainer(
        model=tuned, args=arguments, train_dataset=Conversations(rows, job.num_frames), data_collator=collator
    )
    trainer.train()
    tuned.save_pretrained(str(folder))
    return folder


def run(job: Job, folder: Path) -> list[str | None]:
    """The whole job; leaves adapters of both stages in `folder`.

    Returns:
        The label found in the answer about each test video; None where there is none.
    """
    processor: Any = AutoProcessor.from_pretrained(job.model)
    writer: Any = AutoModelForImageTextToText.from_pretrained(job.model, dtype=torch.float32).eval()
    rationales: list[Conversation] = []
    for path, label in job.train:
        question = HINTED_QUESTION.format(label=label)
        text = answer(writer, processor, path, question, job, job.new_tokens)
        rationales.append(Conversation(path, question, f"{text}\n{CONCLUSION.format(label=label)}"))
    first = train(job, None, rationales, folder / "stage1")
    second = train(
        job, first, [Conversation(path, LABEL_QUESTION, label) for path, label in job.train], folder / "stage2"
    )
    base: Any = AutoModelForImageTextToText.from_pretrained(job.model, dtype=torch.float32)
    tested: Any = PeftModel.from_pretrained(base, str(second)).eval()
    found: list[str | None] = []
    for path, _ in job.test:
        text = answer(tested, processor, path, LABEL_QUESTION, job, job.label_tokens).casefold()
        # the longest, because a label may stand in another
        named = [label for label in job.labels if label.casefold() in text]
        found.append(max(named, key=len, default=None))
    return found
