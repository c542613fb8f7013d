"""The networks that the demo shows, and their examples."""

import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from ddpm import UserError, generate, load_images, save
from ddpm.checkpoint.header import WEIGHTS_FOLDER
from ddpm.config import write_toml
from ddpm.demo import equations
from ddpm.demo import models as models_module
from ddpm.demo.models import MAX_EXAMPLE_STEPS, ModelStore
from ddpm.demo.requests import Picture
from ddpm.utils.images import to_float
from lazy import Module
from pictures import data_uri

page = Module("ddpm.demo.page")


def test_a_checkpoint_that_vanishes_or_changes(tmp_path):
    path = tmp_path / "a.safetensors"
    shutil.copy(WEIGHTS_FOLDER / "mnist.safetensors", path)
    store = ModelStore([str(path)], "cpu")
    first = store[str(path)]
    assert store[str(path)] is first
    both = ModelStore([str(path), "mnist"], "cpu")
    path.unlink()
    with pytest.raises(UserError, match="no longer there"):
        _ = store[str(path)]
    with pytest.raises(UserError, match="no longer there"):
        page.described(store)
    assert [m["name"] for m in page.described(both)] == ["mnist"]  # the page stands
    shutil.copy(WEIGHTS_FOLDER / "mnist.safetensors", path)
    assert store[str(path)] is not first
    with pytest.raises(UserError, match="there is no model"):
        _ = store["other"]


def test_examples_are_real_digits_where_the_network_learned_them():
    store = ModelStore(["mnist"], "cpu")
    assert torch.equal(store.example("mnist", 2), load_images("mnist5k").images[2 * 97])
    assert torch.equal(store.example("mnist", 52), store.example("mnist", 2))
    assert store.has_real_examples("mnist")
    with pytest.raises(UserError, match="there is no model"):
        store.example("other", 0)


def test_examples_of_a_set_that_is_on_this_machine(digits, tmp_path, monkeypatch):
    """Else it is said that the network made them."""
    path = str(tmp_path / "clothes.safetensors")
    config = replace(digits.config, root=str(tmp_path / "data"))
    write_toml(config, tmp_path / "config.toml")  # it is a run's, whose root was named by its user
    save(path, digits.net, config, replace(digits.data, source="fashion-mnist"), 1, 1)
    store = ModelStore([path], "cpu")
    assert not store.has_real_examples(path)
    assert "this network made" in store.image(path, Picture())[1]
    (tmp_path / "data" / "FashionMNIST" / "raw").mkdir(parents=True)
    clothes = load_images("mnist5k")
    monkeypatch.setattr(models_module, "load_images", lambda source, root: clothes)
    store = ModelStore([path], "cpu")
    assert store.has_real_examples(path)
    assert torch.equal(store.example(path, 2), clothes.images[2 * 97])
    assert "of its data set" in store.image(path, Picture())[1]


def test_other_examples_are_made_once_in_few_steps(digits, tmp_path):
    path = str(tmp_path / "other.safetensors")
    save(path, digits.net, digits.config, replace(digits.data, source="other"), 1, 1)
    store = ModelStore([path], "cpu")
    net, seen = store[path].net, []
    forward = net.forward
    net.forward = lambda x, *rest: seen.append(len(x)) or forward(x, *rest)
    image = store.example(path, 3)
    assert 0 < len(seen) <= MAX_EXAMPLE_STEPS
    settings = replace(digits.config.sample, sampler="ddim", eta=0.0)
    made = generate(path, 4, settings=settings).images[3]
    assert (image.int() - made.int()).abs().max() <= 2
    seen.clear()
    equations.whiteboard(store[path], store.example(path, 3), 250)
    assert seen == [1]


def test_dark_drawings_on_white_are_inverted_for_light_on_dark():
    store = ModelStore(["mnist", "celeba64"], "cpu")
    drawing = Image.new("L", (60, 60), 255)
    drawing.paste(0, (20, 20, 40, 40))
    picture = Picture(data=data_uri(drawing), name="seven.png")
    image, note = store.image("mnist", picture)
    assert image[0, 0, 0] == 0
    assert image[0, 14, 14] == 255
    assert "inverted" in note
    assert store.image("celeba64", picture)[0].max() == 255
    assert "inverted" not in store.image("celeba64", picture)[1]
    light = Picture(data=data_uri(drawing.point(lambda v: 255 - v)))
    assert torch.equal(store.image("mnist", light)[0], image)


def test_the_classifier_is_that_of_the_classes(digits, tmp_path):
    store = ModelStore(["mnist", "cifar10", "celeba64"], "cpu")
    _, logits = store.classifier("mnist")(to_float(store.example("mnist", 3)[None]))
    assert logits.shape == (1, 10)
    assert store.classifier("cifar10") is not None
    assert store.classifier("celeba64") is None
    path = str(tmp_path / "letters.safetensors")
    save(path, digits.net, digits.config, replace(digits.data, classes=tuple("abcdefghij")), 1, 1)
    assert ModelStore([path], "cpu").classifier(path) is None


def test_what_the_page_knows_of_a_network():
    store = ModelStore(["mnist"], "cpu")
    about = store.describe("mnist")
    assert about["shape"] == (1, 28, 28)
    assert about["classes"] == tuple("0123456789")
    assert about["has_classifier"]
