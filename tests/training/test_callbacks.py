"""Plain progress lines, saving on whole steps, and stopping where a run can be continued."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rbft.errors import Interrupted
from rbft.training.callbacks import GracefulStop, PlainProgress, SaveCheckpoint
from rbft.training.checkpoint import MANIFEST

BEFORE = tuple(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))


PLACE = Path("checkpoints") / MANIFEST


def trainer(of_other_ranks: int = 0, **settings) -> SimpleNamespace:
    """What the callbacks read of a trainer; other ranks have noted the signal `of_other_ranks`."""
    saved: list[Path] = []

    def reduce(mine: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "max"
        return mine.clamp_min(of_other_ranks)

    made = {
        "accumulate_grad_batches": 2,
        "global_step": 1,
        "is_last_batch": False,
        "saved": saved,
        "save_checkpoint": saved.append,
        "current_epoch": 0,
        "strategy": SimpleNamespace(root_device="cpu", reduce=reduce, broadcast=lambda mine: mine),
    }
    return SimpleNamespace(**{**made, **settings})


def end_of_batch(callback, made: SimpleNamespace, batch_idx: int) -> None:
    callback.on_train_batch_end(made, None, None, None, batch_idx)


def test_places_are_saved_every_so_many_whole_steps():
    callback = SaveCheckpoint(PLACE, every=3)
    saved = []
    for batch_idx in range(14):
        made = trainer(global_step=(batch_idx + 1) // 2)
        end_of_batch(callback, made, batch_idx)
        saved += [batch_idx] * len(made.saved)
    assert saved == [5, 11], "after steps 3 and 6, once each"


def test_the_last_batch_is_left_to_the_end_of_the_epoch():
    callback, made = SaveCheckpoint(PLACE, every=1), trainer(is_last_batch=True)
    end_of_batch(callback, made, 1)
    assert made.saved == []
    callback.on_train_epoch_end(made, None)
    assert made.saved == [PLACE]


def test_zero_saves_at_the_end_of_epochs_only():
    callback, made = SaveCheckpoint(PLACE, every=0), trainer(global_step=0)
    end_of_batch(callback, made, 1)
    assert made.saved == []


def saves_at(moments: list[float], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[float]:
    """At which ends of epochs there is a save, where training starts at second 0 and steps are never saved."""
    now = 0.0
    monkeypatch.setattr("rbft.training.callbacks.time.monotonic", lambda: now)
    callback, saved = SaveCheckpoint(PLACE, every=0, **settings), []
    callback.on_train_start(None, None)
    for epoch, now in enumerate(moments):
        made = trainer(current_epoch=epoch)
        callback.on_train_epoch_end(made, None)
        saved += [now] * len(made.saved)
    return saved


def test_epochs_that_are_short_are_not_each_saved(monkeypatch):
    ends = [4.0, 9.0, 10.0, 15.0, 21.0, 40.0]
    assert saves_at(ends, monkeypatch, seconds=10) == [10.0, 21.0, 40.0]
    assert saves_at(ends, monkeypatch, seconds=0) == ends


def test_the_best_epoch_is_saved_however_short(monkeypatch):
    best = SimpleNamespace(epoch=1)
    assert saves_at([1.0, 2.0, 3.0], monkeypatch, seconds=10, best=best) == [2.0]


def test_steps_that_end_with_an_epoch_are_saved_there():
    callback = SaveCheckpoint(PLACE, every=2, seconds=1e9)
    made = trainer(global_step=4, is_last_batch=True)
    end_of_batch(callback, made, 3)
    assert made.saved == []
    callback.on_train_epoch_end(made, None)
    assert made.saved == [PLACE]
    made = trainer(global_step=5)
    callback.on_train_epoch_end(made, None)
    assert made.saved == []


def test_the_clock_of_one_rank_decides():
    callback = SaveCheckpoint(PLACE, every=0, seconds=0)
    made = trainer()
    made.strategy.broadcast = lambda mine: False
    callback.on_train_epoch_end(made, None)
    assert made.saved == []


@pytest.fixture
def stop() -> GracefulStop:
    return GracefulStop(PLACE, "rbft fit --config x.yaml")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_stops_training_behind_a_whole_step(stop, number, code):
    made = trainer()
    with stop, pytest.raises(Interrupted, match=r"saved\. To continue: rbft fit --config x\.yaml") as caught:
        end_of_batch(stop, made, 1)  # nobody asked yet
        os.kill(os.getpid(), number)
        end_of_batch(stop, made, 2)
        assert made.saved == [], "in the middle of a step"
        end_of_batch(stop, made, 3)
    assert caught.value.exit_code == code
    assert made.saved == [PLACE]
    assert tuple(map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1))) == BEFORE


def test_an_epoch_that_is_over_is_stopped_behind_it(stop):
    made = trainer(is_last_batch=True)
    with stop:
        os.kill(os.getpid(), signal.SIGTERM)
        end_of_batch(stop, made, 1)
        assert made.saved == []
        with pytest.raises(Interrupted):
            stop.on_train_epoch_end(made, None)
    assert made.saved == [PLACE]


@pytest.mark.parametrize("hook", ["on_train_start", "on_test_start", "on_predict_start"])
def test_handlers_of_the_trainer_do_not_act_beside_it(stop, hook):
    """Under Slurm it would save elsewhere and queue the job again."""
    with stop:
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: pytest.fail("the trainer's handler"))
        getattr(stop, hook)(None, None)
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted):
            end_of_batch(stop, trainer(), 1)


@pytest.mark.parametrize("hook", ["on_test_batch_end", "on_predict_batch_end"])
def test_scoring_and_writing_stop_between_batches(stop, hook):
    made = trainer()
    with stop:
        getattr(stop, hook)(made)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Interrupted):
            getattr(stop, hook)(made)
    assert made.saved == []


def test_a_terminal_that_is_gone_stops_it_and_nothing_is_said_to_it_any_more(stop):
    """In a process of its own, with a terminal of its own."""
    made, main, terminal = trainer(), *pty.openpty()
    pid = os.fork()
    if not pid:
        os.dup2(terminal, 1)
        # the tests themselves may run under nohup
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        code = 1
        try:
            with stop:
                os.kill(os.getpid(), signal.SIGHUP)
                code = 2 if os.isatty(1) else 3
                end_of_batch(stop, made, 1)
        except Interrupted as error:
            code = error.exit_code if made.saved == [PLACE] and code == 3 else code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    os.close(main)
    os.close(terminal)


def test_a_run_under_nohup_outlives_its_terminal(stop):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop:
            os.kill(os.getpid(), signal.SIGHUP)
            end_of_batch(stop, trainer(), 1)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_rank_without_signal_stops_with_the_others_and_like_them(stop, number, code):
    with pytest.raises(Interrupted) as caught:
        end_of_batch(stop, trainer(of_other_ranks=number), 1)
    assert caught.value.exit_code == code


def test_a_second_signal_ends_it_now(stop):
    with stop, pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.code == 130
    assert signal.getsignal(signal.SIGINT) == BEFORE[0]


def lines(callback: PlainProgress, capsys, batches: int = 3) -> list[str]:
    made = SimpleNamespace(
        progress_bar_metrics={"train/loss": 1.23456},
        num_training_batches=batches,
        current_epoch=1,
        max_epochs=2,
        num_test_batches=[batches],
        num_predict_batches=[batches],
    )
    for batch in range(batches):
        callback.on_train_batch_end(made, None, None, None, batch)
        callback.on_test_batch_end(made, None, None, None, batch)
        callback.on_predict_batch_end(made, None, None, None, batch)
    return capsys.readouterr().out.splitlines()


def test_progress_speaks_at_its_pace_and_always_at_the_end(capsys):
    assert lines(PlainProgress("sft", seconds=1000), capsys) == [
        "  sft: epoch 2/2, batch 3/3  train/loss 1.235",
        "  sft: scored batch 3/3",
        "  sft: wrote batch 3/3",
    ]
    assert len(lines(PlainProgress("sft", seconds=0), capsys)) == 9


def test_progress_of_other_ranks_is_silent(capsys):
    callback = PlainProgress("sft", seconds=0)
    callback.disable()
    assert lines(callback, capsys) == []
    callback.enable()
    assert len(lines(callback, capsys)) == 9
