"""An export answers as its run did, by transformers alone, and is there whole or not at all."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from tests.export.hub import running_hub
from tests.support.display_matrix import EIGHT, four_colours, write_oriented
from tests.support.runs import CLASSES, Run, run_experiment, write_experiment
from tests.support.videos import UNEVEN, numbered_frames, remux, write_gif, write_video
from transformers import AutoModelForImageTextToText, AutoProcessor

from rbft.__main__ import main
from rbft.errors import StageError
from rbft.export import build, weights
from rbft.export.card import licence_of
from rbft.export.push import push
from rbft.predict import Classifier
from rbft.predict.run_settings import Recorded

pytest_plugins = ["tests.support.run_fixtures"]


@pytest.fixture(scope="module")
def built_in(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Run:
    """The built-in model, fine-tuned in full for a few steps, half of which is taken."""
    folder = tmp_path_factory.mktemp("built-in")
    whole = {"model": {"tuning": "FullFineTuning", "answering": {"strength": 0.5}}}
    config = write_experiment(folder / "tiny.yaml", clips, Path("builtin/tiny"), whole)
    return run_experiment(config, folder / "runs", method="sft")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports whose program is not run, for tests of something else."""
    monkeypatch.setattr(build, "check_program", lambda *_: 0)


def export(run: Run, to: Path, *flags: str | Path) -> int:
    return main(["export", "--run", str(run.folder), "--to", str(to), *map(str, flags)])


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def by_script(folder: Path, video: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the program in the model card says."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL).group(1)
    assert code == (folder / "score_video.py").read_text()
    assert "rbft" not in re.sub(r"rbft\.json|not rbft", "", code), "nothing of this package is needed"
    monkeypatch.setattr("sys.argv", ["score_video.py", str(video)])
    capsys.readouterr()
    runpy.run_path(str(folder / "score_video.py"), run_name="__main__")
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    return {name: float(chance) for chance, name in lines}


def test_the_built_in_model_in_full(
    built_in: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "out" / "exported"
    monkeypatch.setattr(build, "CLIPS", 5)  # of the 7 that the run was tested and calibrated on
    assert export(built_in, to) == 0
    assert "merged" in capsys.readouterr().out
    assert {path.name for path in to.iterdir()} == {
        "README.md",
        "rbft.json",
        "score_video.py",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    }
    assert list(to.parent.iterdir()) == [to], "nothing is left beside it"
    assert all(path.stat().st_mode & stat.S_IRUSR and path.stat().st_mode & stat.S_IRGRP for path in to.iterdir())
    told = read(to / "rbft.json")
    assert told["form"] == "merged" and told["answering"]["strength_folded_in"] == 0.5
    assert [label["name"] for label in told["labels"]] == list(CLASSES)
    assert told["frames"]["num_frames"] == 4 and told["calibration"] == read(built_in.folder / "calibration.json")
    assert told["calibration_of_program"] == told["calibration"], "it answers as the run does"
    assert told["parity"]["clips"] == 5 and told["parity"]["reloaded"] <= 1e-3
    # what was trained is between the base model and the tuned one
    tuned = load_file(built_in.folder / "classification" / "adapter" / "trained.safetensors")
    before, exported = (
        AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (weights.model_source("builtin/tiny"), to)
    )
    for name, value in tuned.items():
        torch.testing.assert_close(exported[name], torch.lerp(before[name], value, 0.5))
    assert any(not torch.equal(before[name], value) for name, value in tuned.items())
    for video in sorted((clips / "test").rglob("*.mp4"))[::2]:
        (said,) = Classifier(built_in.folder).predict([video])
        assert by_script(to, video, capsys, monkeypatch) == pytest.approx(dict(said.top), abs=2e-5)


def test_the_program_reads_turned_mirrored_oddly_coloured_and_uneven_videos_as_the_run_does(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "exported"
    assert export(finished, to) == 0
    videos = [write_oriented(tmp_path / f"{number}.mp4", matrix) for number, matrix in enumerate(EIGHT.values())]
    videos += [write_video(tmp_path / f"colours{space}.mp4", four_colours(), colorspace=space) for space in (9, 10)]
    videos += [write_video(tmp_path / name, numbered_frames(12), times=UNEVEN) for name in ("a.mp4", "a.mkv")]
    avi = write_video(tmp_path / "b.avi", num_frames=40, bframes=2)
    left_out = remux(avi, tmp_path / "c.avi", time=lambda stamp: stamp + 60 if stamp >= 20 else stamp)
    at_once = remux(videos[-1], tmp_path / "c.mkv", time=lambda stamp: 300 if stamp == 400 else stamp)
    videos += [avi, left_out, at_once, write_gif(tmp_path / "d.gif", [100, 100, 100, 100, 5000])]
    said = Classifier(finished.folder).predict(videos)
    for video, answer in zip(videos, said, strict=True):
        assert by_script(to, video, capsys, monkeypatch) == pytest.approx(dict(answer.top), abs=2e-5), video.name
    assert len({answer.top for answer in said[:8]}) == 8, "the orientation shows in what the model answers"


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_adapter_as_it_is_and_merged(
    form: str,
    finished: Run,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to = tmp_path / "exported"
    assert export(finished, to, "--form", form) == 0
    parity = read(to / "rbft.json")["parity"]
    with capsys.disabled():
        print(f"{form}: {parity}")
    assert parity["merged"] <= 1e-3 and parity["reloaded"] <= 1e-3 and parity["dtype"] == "float32"
    assert (to / "adapter_model.safetensors").is_file() == (form == "adapter")
    assert (to / "model.safetensors").is_file() == (form == "merged")
    AutoProcessor.from_pretrained(to)
    video = next((clips / "test").rglob("*.mp4"))
    (said,) = Classifier(finished.folder).predict([video])
    assert by_script(to, video, capsys, monkeypatch) == pytest.approx(dict(said.top), abs=2e-5)
    if form == "adapter":
        assert read(to / "adapter_config.json")["base_model_name_or_path"] == str(read_model(finished))
        card = (to / "README.md").read_text()
        assert "--enable-lora --max-lora-rank 8" in card and '{"num_frames": 4}' in card


def read_model(run: Run) -> Path:
    return Path(yaml.safe_load(run.config.read_text())["model"]["vlm"])


@pytest.mark.parametrize(
    "flags",
    [
        ["--data.max_pixels", "1300", "--model.scoring.normalize", "token", "--model.scoring.prior", "blank"],
        pytest.param(["--data.max_visual_tokens", "6"], marks=pytest.mark.slow),
        pytest.param(
            ["--data.num_frames", "null", "--data.fps", "2", "--data.max_frames", "3"], marks=pytest.mark.slow
        ),
    ],
    ids=["pixels, normalised, prior", "tokens", "fps"],
)
def test_the_script_sees_the_frames_and_scores_that_the_run_does(
    flags: list[str],
    finished: Run,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = run_experiment(finished.config, tmp_path, *flags, method="zero_shot")
    assert export(run, tmp_path / "exported") == 0
    video = next((clips / "test").rglob("*.mp4"))
    (said,) = Classifier(run.folder).predict([video])
    assert by_script(tmp_path / "exported", video, capsys, monkeypatch) == pytest.approx(dict(said.top), abs=2e-5)


@pytest.mark.usefixtures("unchecked")
def test_the_card_says_what_is_known_and_what_is_not(finished: Run, tmp_path: Path) -> None:
    to = tmp_path / "exported"
    assert export(finished, to) == 0
    card = (to / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    metrics = read(finished.folder / "metrics.json")
    assert front["library_name"] == "peft" and front["license"] == "unknown"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(metrics["test/accuracy"], 4)
    low, high = metrics["test/accuracy_ci95"]
    for words in (
        f"95% interval {low:.1%} to {high:.1%}",
        "On 5 test videos",
        "| training videos | 6 |",
        "rbft (write",
        "Base model: unknown",
        "temperature",
        "vllm serve",
        "## Limits",
    ):
        assert words in card, words
    assert str(finished.folder.parents[3]) not in card.replace(str(read_model(finished)), ""), (
        "no folder of this machine"
    )


@pytest.mark.usefixtures("unchecked")
def test_the_card_warns_of_what_speaks_against_the_run(
    built_in: Run, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export(built_in, tmp_path / "exported") == 0
    card = (tmp_path / "exported" / "README.md").read_text()
    before, behind = card.split("## Before you use it\n\n")
    assert "- The built-in model knows nothing but its own moving shapes" in behind.split("| | |")[0]
    assert "Classes:" in before
    monkeypatch.setattr(Recorded, "cautions", lambda self, *, own_videos: [])
    assert export(finished, tmp_path / "none") == 0
    assert "## Before you use it" not in (tmp_path / "none" / "README.md").read_text()


def test_names_are_text_in_the_card() -> None:
    from rbft.export.card import _md

    assert _md("<script>|[x](http://e)|\n# `a`") == r"\<script\>\|\[x\](http://e)\|  # \`a\`".replace("  ", " ")


def test_a_licence_is_read_from_the_card_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert licence_of(str(tmp_path), None) is None
    for text, expected in (
        ("---\nlicense: mit\n---\n", "mit"),
        ("no front matter", None),
        ("---\n[\n---\n", None),
        ("---\nlicense: mit\ndate: 2024-13-45\n---\n", None),
        ("---\nlicense: other\nlicense_name: qwen\n---\n", "qwen"),
    ):
        (tmp_path / "README.md").write_text(text)
        assert licence_of(str(tmp_path), None) == expected
    assert licence_of("builtin/tiny", None) == "apache-2.0"


# -- what is refused, and that nothing is left then


def test_weights_that_answer_differently_are_not_exported(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = weights.save_trained

    def spoil(model: Any, folder: Path) -> None:
        saved(model, folder)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(read(path) | {"lora_alpha": 9}))

    monkeypatch.setattr(weights, "save_trained", spoil)
    assert export(finished, tmp_path / "exported") == 1
    err = capsys.readouterr().err
    assert "the export was not made: the weights, loaded again, answer differently" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unchecked")
def test_a_place_that_fills_or_is_taken_meanwhile_is_a_line(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    to = tmp_path / "exported"

    def fail(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as full:
        full.setattr(weights, "save_trained", fail)
        assert export(finished, to) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rbft: ")]
    assert f"{to}: no space left on the disk" in said and list(tmp_path.iterdir()) == []
    written = build.card

    def taken(*args: Any) -> str:
        (to / "mine").mkdir(parents=True)
        return written(*args)

    monkeypatch.setattr(build, "card", taken)
    assert export(finished, to) == 1
    assert f"--to {to}: something else was put there meanwhile" in capsys.readouterr().err
    assert [path.name for path in to.iterdir()] == ["mine"] and list(tmp_path.iterdir()) == [to]


@pytest.mark.usefixtures("unchecked")
def test_merging_that_changes_answers_is_no_reason_against_an_adapter(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = LoraModel.merge_and_unload

    def rounded(self: LoraModel) -> Any:
        merged = merge(self)
        merged.get_output_embeddings().weight.data *= 1.5
        return merged

    monkeypatch.setattr(LoraModel, "merge_and_unload", rounded)
    assert export(finished, tmp_path / "merged", "--form", "merged") == 1
    assert "the weights, merged, answer differently" in (said := capsys.readouterr().err)
    assert "--form adapter leaves them as they were trained" in said
    assert export(finished, tmp_path / "adapter") == 0
    parity = read(tmp_path / "adapter" / "rbft.json")["parity"]
    assert parity["merged"] > parity["tolerance"] >= parity["reloaded"]
    assert "keep the adapter apart" in (tmp_path / "adapter" / "README.md").read_text()


@pytest.mark.usefixtures("unchecked")
def test_videos_that_are_gone_are_asked_for(
    finished: Run, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    shutil.copytree(clips, tmp_path / "clips")
    config.write_text(finished.config.read_text().replace(str(clips), str(tmp_path / "clips")))
    run = run_experiment(config, tmp_path / "runs", method="zero_shot")
    shutil.rmtree(tmp_path / "clips")
    assert export(run, tmp_path / "exported") == 1
    assert "--videos FOLDER" in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()
    others = tmp_path / "others"
    shutil.copytree(clips / "val", others)
    (others / "bad.mp4").write_bytes(b"no video")
    assert export(run, tmp_path / "exported", "--videos", others) == 0
    assert "not compared on: bad.mp4" in capsys.readouterr().out
    assert read(tmp_path / "exported" / "rbft.json")["parity"]["clips"] == 2
    assert read(tmp_path / "exported" / "rbft.json")["form"] == "merged", "nothing was trained"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--form", "adapter"], "trained whole parts of the model"),
        (["--public"], "it needs --push"),
        (["--data.num_frames", "3"], "predicted with as it was tested"),
        (["--form", "both"], "rbft export: argument --form"),
        (["--push", "a/b/c"], "--push a/b/c: no name of a repository"),
        (["--push", "me/mine"], "set the environment variable HF_TOKEN"),
    ],
)
def test_wrong_use_is_refused(
    flags: list[str],
    message: str,
    built_in: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert export(built_in, tmp_path / "exported", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "exported").exists()


def test_nothing_is_overwritten(built_in: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("mine")
    assert export(built_in, tmp_path) == 2 and export(built_in, tmp_path / "mine") == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.usefixtures("unchecked")
def test_pushed_only_when_asked_and_private_unless_said(
    built_in: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with running_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        to = tmp_path / "exported"
        assert export(built_in, to) == 0
        assert hub.made == [] and hub.tokens == set()
        assert export(built_in, tmp_path / "again", "--push", "me/mine") == 0
        assert [row["visibility"] for row in hub.made] == ["private"]
        assert hub.tokens == {"Bearer hf_secret"}
        assert {name: hub.files[name] for name in ("model.safetensors", "rbft.json")} == {
            name: (tmp_path / "again" / name).read_bytes() for name in ("model.safetensors", "rbft.json")
        }
        assert set(hub.files) == {path.name for path in to.iterdir()}
        hub.refuse = True
        assert export(built_in, tmp_path / "third", "--push", "me/mine", "--public") == 1
    said = capsys.readouterr()
    assert "the hub did not take it" in said.err and str(tmp_path / "third") in said.err
    # nobody listens there any more
    with pytest.raises(StageError, match="--push me/mine: the hub did not take it"):
        push(tmp_path / "third", "me/mine", "hf_secret", public=False)
    assert "hf_secret" not in said.err + said.out
    assert (tmp_path / "third" / "README.md").is_file(), "what was made is kept"


def test_an_adapter_of_a_local_model_is_not_pushed(
    finished: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert export(finished, tmp_path / "exported", "--push", "me/mine") == 2
    assert "a folder that only this machine has" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm", "internvl"])
def test_other_families_and_half_precision(
    family: str, finished: Run, clips: Path, tmp_path: Path, family_folder: Callable[[str], Path]
) -> None:
    changes = {"model": {"dtype": "bfloat16"}, "stages": {"classification": {"trainer": {"max_steps": 2}}}}
    config = write_experiment(tmp_path / "half.yaml", clips, family_folder(family), changes)
    run = run_experiment(config, tmp_path / "runs", method="sft")
    assert export(run, tmp_path / "adapter") == 0
    parity = read(tmp_path / "adapter" / "rbft.json")["parity"]
    # merging rounds the weights, which may change answers too much
    mergeable = parity["merged"] <= parity["tolerance"]
    assert export(run, tmp_path / "merged", "--form", "merged") == (0 if mergeable else 1)
    for form in ("adapter", "merged") if mergeable else ("adapter",):
        parity = read(tmp_path / form / "rbft.json")["parity"]
        assert parity["dtype"] == "bfloat16" and parity["measure"] == "probability"
        card = (tmp_path / form / "README.md").read_text()
        assert ("a pair of tokens that vLLM" in card) == (family == "qwen3_vl")


@pytest.fixture
def odd_videos(tmp_path: Path) -> Path:
    """Turned, mirrored, oddly coloured and uneven videos."""
    folder = tmp_path / "odd"
    folder.mkdir()
    for number, matrix in enumerate(list(EIGHT.values())[1::3]):
        write_oriented(folder / f"{number}.mp4", matrix)
    write_video(folder / "colours.mp4", four_colours(), colorspace=10)
    write_video(folder / "uneven.mkv", numbered_frames(12), times=UNEVEN)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("-1 if upside_down", "-1 if not upside_down", "looks at other pixels of .*0.mp4"),
        ("{10: 9, 13: 12}", "{}", r"fails on .*colours\.mp4: .*Operation not supported"),
        (' - label["prior"]', " * 0.5", "gives .*0.mp4 other probabilities than the run does"),
        ("", "", ""),
    ],
)
def test_nothing_is_written_where_the_program_does_not_do_as_the_run(
    right: str,
    wrong: str,
    message: str,
    built_in: Run,
    odd_videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    to, script = tmp_path / "exported", build.script

    def spoilt(*args: Any) -> str:
        code = script(*args)
        assert right in code
        return code.replace(right, wrong) if right else code

    monkeypatch.setattr(build, "script", spoilt)
    code = export(built_in, to, "--videos", odd_videos)
    said = capsys.readouterr()
    if message:
        assert code == 1 and re.search(f"the export was not made: score_video.py {message}", said.err), said.err
        assert not to.exists() and not list(tmp_path.glob(".exported*"))
    else:
        assert code == 0 and "it sees the run's pixels of all of them, and answers 2 alike" in said.out
        assert read(to / "rbft.json")["parity"]["answered"] == 2


@pytest.mark.slow
def test_a_program_that_is_killed_for_memory_leaves_its_answers_uncompared(
    built_in: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = build.script
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
    monkeypatch.setattr(build, "script", lambda *args: script(*args).replace("# the question about it", kill))
    assert export(built_in, tmp_path / "exported") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "answers 0 alike" in said and "its answers were not compared: not enough memory" in said
