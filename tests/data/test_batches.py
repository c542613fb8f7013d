"""Batches: every image once an epoch, the same in every run."""

import torch

from ddpm import Batches, ImageDataset, to_uint8


def numbered(n):
    """Images whose pixels are their number."""
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 8, 8)
    return ImageDataset(images, torch.arange(n), tuple(map(str, range(n))), "numbers")


def test_batches_go_through_every_image_once_an_epoch():
    batches = Batches(numbered(20), batch=6, seed=1)
    seen = torch.cat([batches.indices(k) for k in range(10)]).tolist()
    for epoch in range(3):
        assert sorted(seen[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert seen[:20] != seen[20:40]
    x0, y = batches(3)
    assert torch.equal(to_uint8(x0)[:, 0, 0, 0], y.to(torch.uint8))


def test_batch_k_depends_on_the_seed_and_k_alone():
    a, b = Batches(numbered(20), 6, seed=1), Batches(numbered(20), 6, seed=1)
    for k in (7, 2, 9):
        a.indices(k)
    assert torch.equal(a.indices(5), b.indices(5))
    assert not torch.equal(a.indices(5), Batches(numbered(20), 6, seed=2).indices(5))


def test_a_batch_may_be_larger_than_the_set():
    assert sorted(Batches(numbered(3), batch=9).indices(0).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_flips_mirror_about_half_and_only_left_to_right():
    ramp = torch.arange(8, dtype=torch.uint8).expand(200, 1, 8, 8)
    ramp = ramp + 10 * torch.arange(8, dtype=torch.uint8)[:, None]
    data = ImageDataset(ramp, None, (), "ramp")
    torch.manual_seed(0)
    x0, y = Batches(data, batch=200, flip=True)(0)
    images = to_uint8(x0)
    mirrored = (images == ramp.flip(-1)).flatten(1).all(1)
    kept = (images == ramp).flatten(1).all(1)
    assert y is None
    assert (mirrored | kept).all()
    assert 70 < mirrored.sum() < 130
