"""A model folder is configuration and weights: Python that lies in it, or that it points to, never runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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


# What transformers uses of the package `kernels`: whatever it imports is there, and fetching leaves the marker.
KERNELS = """
import os


def get_kernel(*_, **__):
    os.makedirs(MARKER, exist_ok=True)
    raise RuntimeError("fetched")


class Anything:
    def __init__(self, *_, **__):
        pass

    def __call__(self, *_, **__):
        return self

    __getattr__ = __call__


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything
"""
LOAD = """
import json, os, pathlib, sys, warnings
warnings.simplefilter("always")
from transformers.utils.import_utils import is_kernels_available
assert is_kernels_available()
from rbft.vlm.loading import load_model, load_processor
folder, path = sys.argv[1], pathlib.Path(sys.argv[1], "config.json")
whole = json.loads(path.read_text())
told = []
for place, key, name in json.loads(sys.argv[2]):
    changed = json.loads(json.dumps(whole))
    (changed[place] if place else changed)[key] = name
    path.write_text(json.dumps(changed))
    with warnings.catch_warnings(record=True) as caught:
        load_processor(folder, None)
        model = load_model(folder, None, "float32", None)
    told.append([model.config.get_text_config()._attn_implementation, " ".join(str(one.message) for one in caught)])
print(json.dumps(told))
try:
    load_model(folder, None, "float32", "strangers/kernel")
except Exception as error:
    print(error)
assert os.path.exists(sys.argv[3]), "who names a kernel gets it"
os.rmdir(sys.argv[3])
"""


def test_kernels_are_not_fetched_for_a_folder_that_names_them(folder: Path, tmp_path: Path, marker: Path) -> None:
    """Even where the package is installed that would; a person may name them."""
    library = tmp_path / "library"
    (library / "kernels-0.18.2.dist-info").mkdir(parents=True)
    (library / "kernels-0.18.2.dist-info" / "METADATA").write_text("Name: kernels\nVersion: 0.18.2\n")
    (library / "kernels.py").write_text(KERNELS.replace("MARKER", repr(str(marker))))
    places = ("", "text_config", "vision_config")
    keys = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
    asked = [(place, key, "strangers/kernel:evil") for place in places for key in keys]
    asked += [("", "attn_implementation", name) for name in ("kernels-community/flash-attn2", "flash_attention_2")]
    asked += [("", "attn_implementation", {"text_config": "strangers/kernel", "": "eager"})]
    asked += [("text_config", "experts_implementation", "sonicmoe"), ("", "attn_implementation", "eager")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(library), *filter(None, sys.path)])}
    command = [sys.executable, "-c", LOAD, str(folder), json.dumps(asked), str(marker)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[0])
    assert told.pop() == ["eager", ""]
    for (place, key, name), (taken, warning) in zip(asked, told, strict=False):
        assert taken == "sdpa", (place, key, name)
        if (place, key) == ("", "attn_implementation"):  # of the other places transformers itself takes nothing
            assert "model.attn_implementation" in warning


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
