"""Every model type with a recipe is used as plain transformers uses it, from clips to a trained and saved model."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.support import newest_families
from tests.support.families import RECIPES
from tests.support.family_parts import TINY
from tests.support.model_table import PAGE, REFUSED, TYPES, WITHOUT, check, does_not, works
from tests.support.models import Loaded, Plain, load, make_clip
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rbft.errors import ModelError
from rbft.video.clip import Clip
from rbft.vlm.batch import Item, PromptInputs, collate
from rbft.vlm.cost import model_size
from rbft.vlm.feature_cache import FeatureCache
from rbft.vlm.generation import generate
from rbft.vlm.label_scorer import LabelScorer
from rbft.vlm.loading import bare_model, load_config, load_model
from rbft.vlm.lora_targets import adapter_targets, language_layers
from rbft.vlm.model import VLM
from rbft.vlm.model_parts import parts_of, vision_towers
from rbft.vlm.processing import ClipProcessor
from rbft.vlm.prompt import Prompt
from rbft.vlm.shared_prefix import answer_logits
from rbft.vlm.tower import PRODUCTS
from rbft.vlm.tuning import LoRA, trained_state

QUESTION, OTHER = "Which action does this video show?", "Describe the video."
LABELS = ("push", "push up", "the person jumps over a wooden door")
CLIPS = (make_clip(0), make_clip(1, frames=4))


@dataclass(frozen=True)
class Model:
    """A model with two clips of unlike length, and what plain transformers scores them."""

    folder: Path
    loaded: Loaded
    prompts: list[PromptInputs]
    targets: tuple[Tensor, ...]
    naive: Tensor

    def scores(self, prompts: list[PromptInputs]) -> Tensor:
        with torch.no_grad():
            return LabelScorer(self.targets)(self.loaded.vlm, prompts)


def inputs(loaded: Loaded, clip: Clip, question: str = QUESTION) -> PromptInputs:
    return loaded.inputs(question, clip)


@pytest.fixture(scope="module", params=sorted(RECIPES))
def model(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]) -> Model:
    if request.param == "perception_lm":
        pytest.importorskip("timm")
    folder = family_folder(request.param)
    loaded = load(folder)
    targets = tuple(loaded.target(QUESTION, label) for label in LABELS)
    prompts = [loaded.inputs(QUESTION, clip) for clip in CLIPS]
    return Model(folder, loaded, prompts, targets, Plain(folder).scores(QUESTION, CLIPS, targets))


def near(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).abs().max()) < 1e-4


def test_scores_are_those_of_full_passes_alone_and_in_a_batch_of_unlike_clips(model):
    assert len({len(prompt.ids) for prompt in model.prompts}) == 2
    assert float((model.naive[0] - model.naive[1]).abs().max()) > 0.05, "the clips must matter"
    for row, prompt in enumerate(model.prompts):
        near(model.scores([prompt]), model.naive[row : row + 1])
    near(model.scores(model.prompts), model.naive)


def test_another_question_about_a_clip_has_the_tokens_of_the_processor(model):
    found = model.loaded.processor.another(Prompt(OTHER), model.prompts[0])
    expected = model.loaded.inputs(OTHER, CLIPS[0])
    assert torch.equal(found.ids, expected.ids)
    assert (found.types is None) == (expected.types is None)
    assert found.types is None or torch.equal(found.types, expected.types)
    assert found.extras.keys() == expected.extras.keys()


def test_several_answers_about_a_clip_are_those_of_full_passes(model):
    question = model.loaded.processor.another(Prompt(OTHER), model.prompts[0])
    rows = [
        [Item(0, model.prompts[0], model.targets[0]), Item(0, question, model.targets[2])],
        [Item(1, model.prompts[1], model.targets[1])],
    ]
    with torch.no_grad():
        answers = answer_logits(model.loaded.vlm, collate(rows))
    log_probs = answers.log_probs()
    found = torch.stack([log_probs[answers.rows == row].sum() for row in range(3)])
    other = Plain(model.folder).log_probs(OTHER, CLIPS[0], model.targets[2]).sum()
    near(found, torch.stack([model.naive[0, 0], other, model.naive[1, 1]]))


@pytest.mark.slow
def test_answers_in_a_batch_are_those_written_alone_and_the_likeliest_of_full_passes(model):
    vlm = model.loaded.vlm
    together = generate(vlm, model.prompts, max_new_tokens=5)
    for prompt, (answer,) in zip(model.prompts, together, strict=True):
        assert generate(vlm, [prompt], max_new_tokens=5)[0][0].tolist() == answer.tolist()
    plain, answer = Plain(model.folder), together[0][0]
    for place, token in enumerate(answer.tolist()):
        assert token == int(plain.next_log_probs(QUESTION, CLIPS[0], answer[:place]).argmax()), place


@pytest.mark.slow
def test_kept_features_give_the_same_scores(model, tmp_path, monkeypatch):
    cache, key = FeatureCache(tmp_path, 10**9), "0" * 32
    monkeypatch.setattr(model.loaded.vlm, "features", cache)
    with torch.no_grad():
        model.loaded.vlm.with_features([replace(model.prompts[0], key=key)])
    kept = cache.load(key)
    assert kept is not None
    prompt = model.loaded.processor.encoded_inputs(Prompt(QUESTION), kept, "clip.mp4")
    assert torch.equal(prompt.ids, model.prompts[0].ids)
    near(model.scores([prompt]), model.naive[:1])


@pytest.mark.slow
def test_a_clip_costs_what_is_said_before_it_is_read(model):
    cost = model.loaded.processor.clip_cost(8, 48, 64, prompt=Prompt(QUESTION), seconds=CLIPS[0].duration)
    visual = model.loaded.processor.count_visual_tokens(model.prompts[0].ids)
    assert (cost.visual_tokens, cost.text_tokens) == (visual, len(model.prompts[0].ids) - visual)
    assert cost.pixel_values == sum(v.numel() for k, v in model.prompts[0].vision.items() if "pixel_values" in k)


def test_a_clip_is_cut_into_the_tokens_that_its_cost_is_computed_of(model):
    size = model_size(str(model.folder), None, "auto", None, LoRA())
    base = model.loaded.vlm.base
    inside = [base] if "unified" in model.folder.name else vision_towers(base)
    language = set(base.get_decoder().modules()) | {base.get_output_embeddings()}
    firsts = [next(m for m in part.modules() if isinstance(m, PRODUCTS) and m not in language) for part in inside]
    rows: list[int] = []
    hooks = [
        first.register_forward_hook(lambda module, _, out: rows.append(out.numel() // module.weight.shape[0]))
        for first in firsts
    ]
    with torch.no_grad():
        model.loaded.vlm.encode([model.prompts[0]])
    for hook in hooks:
        hook.remove()
    pixels = sum(v.numel() for k, v in model.prompts[0].vision.items() if "pixel_values" in k)
    # some towers pad their frames to one length
    assert sum(rows) <= pixels / size.patch_values * 1.01 and sum(rows) >= pixels / size.patch_values * 0.99


@pytest.mark.slow
def test_text_alone_scores_what_full_passes_do(model):
    prompt = model.loaded.processor.prompt_inputs(Prompt("Which label is meant?", video=False), None)
    plain = Plain(model.folder).model
    expected = []
    for target in model.targets:
        row = torch.cat([prompt.ids, target]).unsqueeze(0)
        types = {} if prompt.types is None else {"mm_token_type_ids": torch.zeros_like(row)}
        with torch.no_grad():
            logits = plain(input_ids=row, attention_mask=torch.ones_like(row), **types).logits[0]
        log_probs = logits[len(prompt.ids) - 1 : -1].log_softmax(-1)
        expected.append(log_probs.gather(1, target.unsqueeze(1)).sum())
    near(model.scores([prompt])[0], torch.stack(expected))


def test_every_linear_layer_of_the_language_model_gets_an_adapter_and_the_page_says_what_is_so(model):
    bare = bare_model(load_config(str(model.folder), None))
    name, layers, adapted = bare.config.model_type, language_layers(bare), adapter_targets(bare, None).layers
    assert {layer.rpartition(".")[2] for layer in set(layers) - set(adapted)} == WITHOUT.get(name, set())
    check(name, works(name, model.loaded.vlm, len(adapted), len(layers)))


def test_every_type_of_transformers_that_takes_video_has_a_line():
    lines = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines == TYPES
    assert {*RECIPES} | {*REFUSED} == {*TYPES}, "each type is proven to work or to be refused"
    for name in REFUSED:
        check(name, does_not(name))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_type_that_cannot_work_is_refused_by_its_configuration(name, tmp_path):
    CONFIG_MAPPING[name]().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"is a '{name}' model, which {REFUSED[name]}"):
        ClipProcessor(str(tmp_path))


def test_what_transformers_cannot_do_is_still_so():
    """Otherwise a type that is refused for it can be used, and is to be proven."""
    size = TINY
    family = newest_families.kimi(size)
    clip, text = make_clip(0), "a <|kimi_k25_video_placeholder|> b"
    about = {"video_metadata": [[clip.metadata()]], "do_sample_frames": False, "return_tensors": "pt"}
    given = family.processor(text=[text], videos=[[clip.frames]], **about)
    given.pop("video_metadata", None)
    model = family.model_class(family.config)
    with pytest.raises(RuntimeError, match="split_sizes"):
        model(**given)
    with pytest.raises(AttributeError, match="'fps'"):
        newest_families.nemotron_processor(size)(text=["a <video> b"], videos=[[clip.frames]], **about)


def test_what_is_frozen_is_all_that_makes_features_of_pixels(model):
    parts = parts_of(model.loaded.vlm.base)
    # one that has no tower feeds patches through its projector
    towers = set() if "unified" in model.folder.name else {"vision"}
    assert set(parts.values()) == {"language", "projector", *towers}
    # a pass over text reaches the language model alone
    reached = {name: value for name, value in model.loaded.vlm.base.named_parameters() if parts[name] != "language"}
    ids = torch.arange(40, 50).unsqueeze(0)
    model.loaded.vlm.base(input_ids=ids).logits.sum().backward()
    assert all(value.grad is None for value in reached.values())
    assert any(value.grad is not None for value in model.loaded.vlm.base.parameters())
    model.loaded.vlm.base.zero_grad(set_to_none=True)


@pytest.mark.slow
def test_a_step_trains_every_adapter_and_checkpointing_changes_nothing(model):
    gradients = []
    question = model.loaded.processor.another(Prompt(OTHER), model.prompts[0])
    batch = collate([[Item(0, model.prompts[0], model.targets[0]), Item(0, question, model.targets[2])]])
    for checkpointing in (False, True):
        plain = load_model(str(model.folder), None, "float32", None)
        if checkpointing:
            plain.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(0)
        tuned = LoRA(rank=2, dropout=0.0).apply(plain)
        vlm = VLM(tuned.train(), model.loaded.processor.pad_id, model.loaded.processor.end_ids)
        answer_logits(vlm, batch).log_probs().sum().neg().backward()
        trained = {name: value for name, value in tuned.named_parameters() if value.requires_grad}
        assert all("lora_" in name for name in trained)
        assert all(value.grad is not None and value.grad.any() for name, value in trained.items() if "lora_B" in name)
        gradients.append({name: value.grad for name, value in trained.items()})
    largest = max(float(value.abs().max()) for value in gradients[0].values())
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-4 * largest)


@pytest.mark.slow
def test_a_merged_model_scores_the_same_once_it_is_saved_and_loaded(model, tmp_path):
    tuned = LoRA(rank=2).apply(load_model(str(model.folder), None, "float32", None)).eval()
    generator = torch.Generator().manual_seed(0)
    for value in trained_state(tuned).values():
        value.add_(0.02 * torch.randn(value.shape, generator=generator))
    processor = model.loaded.processor
    with torch.no_grad():
        expected = LabelScorer(model.targets)(VLM(tuned, processor.pad_id, processor.end_ids), model.prompts)
    assert float((expected - model.naive).abs().max()) > 0.01, "the adapter must matter"
    tuned.merge_and_unload().save_pretrained(tmp_path)
    processor.save(str(tmp_path))
    again = load(tmp_path)
    with torch.no_grad():
        found = LabelScorer(model.targets)(again.vlm, [again.inputs(QUESTION, clip) for clip in CLIPS])
    assert float((found - expected).abs().max()) < 1e-3
