"""A model folder is configuration and weights: Python that lies in it, or that it points to, never runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.models import make_clip

from rbft.errors import ModelError, RBFTError
from rbft.vlm.loading import load_config, load_model, load_processor
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

AUTO = {
    "AutoConfig": "evil.Evil",
    "AutoModel": "evil.Evil",
    "AutoModelForImageTextToText": "evil.Evil",
    "AutoProcessor": "evil.Evil",
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    "AutoImageProcessor": "evil.Evil",
    "AutoVideoProcessor": "evil.Evil",
}


@pytest.fixture
def folder(family_folder: Callable[[str], Path], tmp_path: Path, marker: Path) -> Path:
    """A model folder with a module that leaves the marker when it is imported."""
    folder = Path(shutil.copytree(family_folder("qwen2_5_vl"), tmp_path / "model"))
    for name in ("evil.py", "custom_generate/generate.py", "modeling_evil.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"import os\nos.mkdir({str(marker)!r})\nclass Evil:\n    pass\n")
    return folder


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load_everything(folder: Path) -> None:
    load_config(str(folder), None)
    load_processor(str(folder), None)
    load_model(str(folder), None, "float32", None)


def test_modules_that_every_file_names(folder: Path) -> None:
    for path in folder.glob("*.json"):
        if path.name != "tokenizer.json":  # its own format, which names no classes
            change(path, auto_map=AUTO)
    load_everything(folder)


def test_a_model_that_exists_as_code_only(folder: Path) -> None:
    change(folder / "config.json", auto_map=AUTO, model_type="evil")
    with pytest.raises(ModelError, match=r"cannot be loaded"):
        load_everything(folder)


@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json", "tokenizer_config.json"])
def test_a_processor_that_exists_as_code_only(folder: Path, file: str) -> None:
    path = folder / file
    if not path.exists():
        path.write_text("{}")
    change(path, auto_map=AUTO, processor_class="Evil", tokenizer_class="Evil", video_processor_type="Evil")
    try:
        load_processor(str(folder), None)
    except RBFTError as error:
        assert "cannot be loaded" in str(error)


@pytest.mark.parametrize(
    "key", ["_attn_implementation", "attn_implementation", "_attn_implementation_internal", "_experts_implementation"]
)
def test_kernels_of_strangers_are_not_fetched(folder: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("the network"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network"))
    change(folder / "config.json", **{key: "strangers/kernel:evil"})
    try:
        load_everything(folder)
    except RBFTError as error:
        assert "cannot be loaded" in str(error)


def test_generation_takes_no_code_from_the_folder(folder: Path, marker: Path) -> None:
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)
    model = load_model(str(folder), None, "float32", None)
    model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=2)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize(
    "text", ["", "[]", "[1", "{}", '{"model_type": 5}', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_files_that_are_not_what_they_should_be(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    try:
        load_processor(str(folder), None)
    except ModelError as error:
        assert "model.vlm: " in str(error)


TEMPLATES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ messages.append(messages) }}",
    "{% for m in messages %}{{ m.clear() }}{% endfor %}",
    "{{ raise_exception('no') }}",
    "{{ 1 / 0 }}",
    "{{ messages[99].content }}",
    "{% import 'evil.py' as evil %}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_chat_template_reaches_nothing(template: str, folder: Path, marker: Path) -> None:
    (folder / "chat_template.jinja").write_text(template.replace("MARKER", str(marker)))
    processor = ClipProcessor(str(folder))
    with pytest.raises(ModelError, match=r"chat template|put no visual token"):
        processor.prompt_inputs(Prompt("which?"), make_clip(0))
