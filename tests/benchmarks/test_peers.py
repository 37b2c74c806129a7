"""Other frameworks are measured from their own environments, and only where they train the very same."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import transformers
from benchmarks.models import CELL, build_as_published

from benchmarks import authors_way, peers, peers_run


def flags(out: Path, *more: str) -> list[str]:
    return ["--json", str(out), "--repeats", "1", "--clips", "4", "--size", "tiny", *more]


def environment(folder: Path, script: str) -> Path:
    """A virtual environment in which any package is installed, and whose runs are a line of shell."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\n{script}\n')
    python.chmod(0o755)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)  # five processes that import all there is
def test_rows(tmp_path: Path, media: Path) -> None:
    same = environment(tmp_path / "same", f'exec "{sys.executable}" "$1" rbft "$3" "$4"')
    broken = environment(tmp_path / "broken", "echo no such option; exit 3")
    out = tmp_path / "record.json"
    named = ["--peer", "ms-swift", "--venv", str(same), "--peer", "llamafactory", "--venv", str(broken)]
    assert peers.main(flags(out, "--media", str(media), *named)) == 1
    row, failed = json.loads(out.read_text())["rows"]
    assert (row["peer"], row["available"], row["case"]) == ("ms-swift", True, "LoRA, 4 clips, 2 epochs, batch 2")
    assert row["max_abs_diff"] == 0
    assert row["bound"] > row["speedup"] > 0 and row["peak_memory_ratio"] > 0
    assert row["tokens_per_sample"] > row["visual_tokens_per_sample"] > row["supervised_tokens_per_sample"] > 0
    assert (failed["peer"], failed["available"]) == ("llamafactory", False)
    assert failed["reason"] == "ended with code 3: no such option"


@pytest.mark.slow
def test_counts_and_losses_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HF_HUB_OFFLINE", "1"), ("RBFT_CACHE", str(tmp_path / "cache"))):
        monkeypatch.setenv(name, value)
    model, clips = build_as_published("small", tmp_path), tmp_path / "clips"
    clips.mkdir()
    rows = peers.write_exact_videos(clips, ("fall", "jump"))
    task = peers.Task(model, rows[:2], rows[2:], 64 * CELL**2, epochs=1, batch=1, learning_rate=0.0)
    ours = peers.make_run(peers.Side("rbft", Path(sys.executable), task), tmp_path / "run")
    monkeypatch.setattr(transformers.Trainer, "training_step", transformers.Trainer.training_step)  # undone at the end
    steps: list[peers_run.Step] = []
    peers_run.watch_trainer(steps)
    job = authors_way.Job(model, task.rows, (), ("fall", "jump"), peers.FRAMES, epochs=1, batch=1, learning_rate=0.0)
    authors_way.train(
        job, None, [authors_way.Conversation(path, peers.QUESTION, label) for path, label in rows[:2]], tmp_path / "out"
    )
    peers.require_same("transformers", {"steps": steps}, ours)
    assert peers.compare_losses({"steps": steps}, ours) < 1e-5
    steps[0]["supervised"] += 1
    with pytest.raises(RuntimeError, match="transformers does not do the same as rbft"):
        peers.require_same("transformers", {"steps": steps}, ours)


@pytest.mark.slow
@pytest.mark.timeout(900)  # six processes that import all there is
def test_upper_layers_are_compared_with_the_same_adapters_and_with_all(tmp_path: Path, media: Path) -> None:
    same = environment(tmp_path / "same", f'exec "{sys.executable}" "$1" rbft "$3" "$4"')
    out = tmp_path / "record.json"
    more = ["--layers", "2", "--epochs", "1", "--peer", "llamafactory", "--venv", str(same)]
    assert peers.main(flags(out, "--media", str(media), *more)) == 0
    alike, whole, absent = json.loads(out.read_text())["rows"]
    assert (alike["peer"], whole["peer"]) == ("llamafactory", "llamafactory, adapters in all layers")
    assert alike["case"] == whole["case"] == "LoRA, 4 clips, 1 epochs, batch 2"
    assert alike["trained_weights"]["rbft"] == alike["trained_weights"]["llamafactory"]
    assert whole["trained_weights"][whole["peer"]] == whole["trained_weights"]["rbft"]  # two of two layers
    assert alike["max_abs_diff"] == whole["max_abs_diff"] == 0
    assert (absent["peer"], absent["available"]) == ("ms-swift", False)


def test_upper_layers_are_not_compared_with_who_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(flags(tmp_path / "record.json", "--layers", "1", "--peer", "ms-swift", "--venv", str(tmp_path)))
    assert "ms-swift is compared with adapters in all layers alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("layers", "targets"),
    [
        (None, "all"),
        (
            [5],
            "language_model.layers.5.self_attn.q_proj,language_model.layers.5.self_attn.k_proj,"
            "language_model.layers.5.self_attn.v_proj,language_model.layers.5.self_attn.o_proj,"
            "language_model.layers.5.mlp.gate_proj,language_model.layers.5.mlp.up_proj,"
            "language_model.layers.5.mlp.down_proj",
        ),
    ],
)
def test_llamafactory_is_given_the_names_of_the_layers(layers: list[int] | None, targets: str) -> None:
    assert peers_run.llamafactory_targets(layers) == targets


def test_peers_that_are_not_installed_are_rows(tmp_path: Path, media: Path) -> None:
    empty = environment(tmp_path / "empty", "exit 0")
    (empty / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    out = tmp_path / "record.json"
    assert peers.main(flags(out, "--media", str(media), "--peer", "ms-swift", "--venv", str(empty))) == 0
    reasons = {row["peer"]: row["reason"] for row in json.loads(out.read_text())["rows"]}
    assert reasons == {
        "ms-swift": "ms-swift is not installed in empty",
        "llamafactory": "no environment was named (--peer llamafactory --venv FOLDER)",
    }
    assert peers.missing("ms-swift", tmp_path) == f"{tmp_path.name} is no virtual environment: it has no bin/python"


def test_a_peer_needs_its_environment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(flags(tmp_path / "record.json", "--peer", "ms-swift"))
    assert "every --peer needs its --venv" in capsys.readouterr().err


@pytest.mark.parametrize("clips", ["6", "3"])
def test_too_few_videos_are_refused(
    tmp_path: Path, media: Path, clips: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "record.json"
    assert peers.main([*flags(out, "--media", str(media)), "--clips", clips]) == 1
    assert f"does not have --clips {clips}" in capsys.readouterr().err
    assert not out.exists()


def test_without_videos_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    assert peers.main(flags(out)) == 2
    assert "skipped" in capsys.readouterr().err
    assert not out.exists()
