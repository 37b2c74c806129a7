"""Names and texts of others stay text: in the terminal, in TensorBoard, on the page, and in prompts."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugin_util import markdown_to_safe_html
from tests.support.families import FAMILIES
from tests.support.runs import fit
from tests.support.videos import write_video

from rbft.data.datamodule import VideoDataModule
from rbft.data.formats import ClassFolders
from rbft.data.formats.on_disk import report_missing
from rbft.data.labels import LabelSet
from rbft.errors import ConfigError, DataError, RBFTError, VideoError, printable
from rbft.evaluation import metrics
from rbft.evaluation.predictions import Prediction
from rbft.experiment import Experiment, Stage
from rbft.rationales.store import Rationale
from rbft.report.run_page import write_page
from rbft.terminal import make_console
from rbft.training.logging import log_rationales
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt

# titles, colours, moved cursors, answers to queries, a hyperlink, 8-bit control codes, text that reads backwards
ESCAPES = [
    "\x1b]0;title\x07",
    "\x1b[2J\x1b[31m",
    "\x1b[6n",
    "\x1b]8;;http://evil\x07link\x1b]8;;\x07",
    "\x9b31m",
    "\x08\x08\x08",
    "a\rb",
    "fight\u202etxt.exe",
    "\u2066x\u2069",
    "\x00",
    "\ud83d",
]
FORBIDDEN = {"Cc", "Cf", "Cs"}


def controls(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in FORBIDDEN and char not in "\n\t"}


@pytest.mark.parametrize("text", ESCAPES)
@pytest.mark.parametrize("kind", [RBFTError, ConfigError, DataError, lambda text: VideoError(text, text)])
def test_errors_carry_no_control_characters(kind: Callable[[str], Exception], text: str) -> None:
    said = str(kind(f"file {text} is bad"))
    assert not controls(said)
    assert said.startswith("file ")


def test_honest_text_is_left_as_it_is() -> None:
    for text in ("one\ntwo\tthree", "Zoë käme 走る", "می\u200cخواهم", "🏃 \u0928\u200d", r"C:\x1b"):
        assert printable(text) == text
    assert printable("\x1b[1m") == "\\x1b[1m"


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_that_is_printed_drives_the_terminal(text: str) -> None:
    console = make_console()
    console.file = io.StringIO()
    table = Table(box=None)
    table.add_column(f"column {text}")
    table.add_row(f"cell {text}")
    console.print(f"[bold]line[/] {escape(text)}", table, f"x{text}")
    shown = console.file.getvalue()
    assert not controls(shown)
    assert "cell" in shown


@pytest.mark.parametrize("text", ["[bold]x[/]", "[/]", "[link=http://evil]x[/link]", "[red", ":skull:", "\\[bold]"])
def test_names_are_no_markup(text: str) -> None:
    console = make_console()
    console.file = io.StringIO()
    console.print(escape(text))
    assert console.file.getvalue() == f"{text}\n"


@pytest.mark.parametrize("text", ESCAPES[:-2])
def test_a_command_that_fails_over_such_names(text: str, tmp_path: Path) -> None:
    config = tmp_path / "x.yaml"
    config.write_text("data: {num_frames: 4}\nstages: {test: {}}\n")
    for flags in (("--data.root", f"{tmp_path}/{text}"), ("--method", text), ("--data.rooot", text), ("--stage", text)):
        result = fit("--config", config, "--run_root", tmp_path / "runs", "--method", "zero_shot", *flags)
        assert result.code in (1, 2)
        assert not controls(result.err + result.out)


def test_warnings_about_such_labels() -> None:
    with pytest.warns(UserWarning) as caught:
        report_missing([("a.mp4", "\x1b[31mred")], 2, "list.csv", "drop")
    assert not controls(str(caught[0].message))


# -- TensorBoard and the page

HTML = [
    "<script>alert(1)</script>",
    "<img src=http://evil/x.png onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "![x](http://evil/x.png)",
    "![x][1]\n\n[1]: http://evil/x.png",
    "[click](javascript:alert(1))",
    "<http://evil/>",
    "</p></div><h1>accuracy 100%</h1>",
    "{{ 7 * 7 }}{% raw %}",
    "`<b>`",
    "&lt;script&gt;&#60;b&#62;",
]
SAFE = {"p", "strong", "em", "code", "pre", "h1", "h2", "h3", "ul", "ol", "li", "hr", "br", "blockquote"}


class Reader(HTMLParser):
    """Tags with their attributes, and the visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def rationale(video: str, label: str, text: str) -> Rationale:
    return Rationale(video, 0, video, label, "00", "blind", "me", text, label, text, False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> VideoDataModule:
    """Clips with names that are HTML."""
    root = tmp_path_factory.mktemp("text")
    for label in ("a & b", "'c' \"d\""):
        (root / label).mkdir()
        for name in ("plain", '"><img src=x onerror=alert(1)>', "![x](x)"):
            write_video(root / label / f"{name}.mp4", num_frames=4, size=(48, 64))
    return VideoDataModule(str(root), ClassFolders(), num_frames=2, cache_clips=False)


def test_tensorboard_shows_what_was_written_and_fetches_nothing(data: VideoDataModule, tmp_path: Path) -> None:
    video = "a & b/![x](x).mp4"
    for number, text in enumerate(HTML):
        log_rationales(tmp_path / str(number), data, [rationale(video, "a & b", text)])
        found = EventAccumulator(str(tmp_path / str(number)))
        found.Reload()
        logged = found.Tensors("rationales/0/text_summary")[0].tensor_proto.string_val[0].decode()
        page = Reader(markdown_to_safe_html(logged))  # what TensorBoard makes of it
        assert {tag for tag, _ in page.tags} <= SAFE, text
        assert "a & b/![x](x).mp4  [a & b]" in page.text
        assert re.sub(r"\s+", "", text) in re.sub(r"\s+", "", page.text)


def test_the_page_shows_what_was_written_and_runs_nothing(data: VideoDataModule, tmp_path: Path) -> None:
    names = data.labels.names
    predictions = [
        Prediction(r.id, r.path, r.label, names[number % 2], (0.6, 0.4), (-1.0, -2.0))
        for number, r in enumerate(data.records)
    ]
    rationales = [rationale(data.records[i % 6].path, names[0], text) for i, text in enumerate(HTML)]
    for chosen in (rationales[:8], rationales[8:]):
        title = "<script>alert(1)</script>"
        stages = (Stage(title, "test", {}, None, None),)
        run_dir = tmp_path / "seed0"
        experiment = Experiment(title, title, title, stages, None, run_dir, (), (), False, False)
        figures = metrics.test_metrics(predictions, data.labels, [r.label for r in data.records])
        write_page(tmp_path / "page.html", experiment, data, figures | {f"{title}/accuracy": 0.5}, predictions, chosen)
        page = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
        tags = {tag for tag, _ in page.tags}
        assert not tags & {"script", "svg", "iframe", "object", "link", "base", "form", "a"}
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")]
            assert (attributes.get("src") or "data:").startswith("data:"), tag
        assert page.text.count(title) >= 3
        assert all(text in page.text for text in (r.text for r in chosen))
        policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None
        assert "default-src 'none'" in policy
        assert "script-src" not in policy


# -- prompts


@pytest.mark.parametrize("family", FAMILIES)
def test_no_label_or_text_becomes_a_special_token(family: str, family_folder: Callable[[str], Path]) -> None:
    processor = ClipProcessor(str(family_folder(family)))
    tokenizer = processor._processor.tokenizer
    own = {getattr(processor._processor, f"{kind}_token", None) for kind in ("video", "image")} - {None}
    assert own <= set(processor.special_tokens), "the places of pictures are special too"
    for token in processor.special_tokens:
        with pytest.raises(DataError, match="which a model could take for a control token"):
            LabelSet((f"a {token}", "b"))
        for text in (f"a{token}b", token * 2):
            with pytest.raises(ConfigError, match="a special token of the model"):
                processor.render(Prompt(text))
            with pytest.raises(ConfigError, match="a special token of the model"):
                processor.render(Prompt("which?"), text)
    # what is not refused must not become one by another way: spaces, wide letters, other case
    for token in processor.special_tokens:
        for text in (f"{token[0]} {token[1:]}", token.upper(), token.swapcase(), token[:-1], "".join(map(wide, token))):
            if any(special in text for special in processor.special_tokens):
                continue
            ids = set(tokenizer(text, add_special_tokens=False)["input_ids"]) - {tokenizer.unk_token_id}
            assert not ids & set(processor.special_ids), text


def wide(char: str) -> str:
    """The full-width form of an ASCII character, which compatibility normalisation makes ASCII again."""
    return chr(ord(char) + 0xFEE0) if 0x21 <= ord(char) <= 0x7E else char


@pytest.mark.parametrize("text", [text for text in ESCAPES if controls(text)])
def test_labels_that_are_no_plain_text_are_refused(text: str) -> None:
    with pytest.raises(DataError) as caught:
        LabelSet((f"a{text}b", "other"))
    assert not controls(str(caught.value))
