"""The bundled classifiers: small, and right on images that they were not trained on."""

import torch

from ddpm import to_float
from ddpm.evaluation.classifiers import CifarNet, DigitNet, digit_net
from ddpm.evaluation.features import load_feature_extractor


def test_the_digit_net_is_small_and_right_on_test_digits(test_digits):
    assert sum(p.numel() for p in digit_net().parameters()) < 250_000
    real = test_digits(0, 500)
    with torch.inference_mode():
        features, logits = digit_net()(to_float(real.images))
    assert features.shape == (500, 128)
    assert (logits.argmax(1) == real.labels).float().mean() >= 0.98


def test_the_cifar_net_looks_at_the_image_and_its_mirror_image(generator):
    images = torch.randint(0, 256, (4, *CifarNet.SHAPE), generator=generator, dtype=torch.uint8)
    net = load_feature_extractor("cifar-net", CifarNet.SHAPE)
    features, logits = net(images)
    assert features.shape == (4, 256)
    assert logits.shape == (4, len(CifarNet.CLASSES))
    torch.testing.assert_close(net(images.flip(-1))[0], features, rtol=1e-3, atol=1e-3)


def test_weights_fit_the_class_whose_file_they_are():
    assert load_feature_extractor("digit-net", DigitNet.SHAPE).classes == DigitNet.CLASSES
    assert load_feature_extractor("cifar-net", CifarNet.SHAPE).classes == CifarNet.CLASSES
