"""Corruptions: exact properties of each, and that an input's own depends on nothing but its number and the seed."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from posterity.data import load
from posterity.data.shift import SEVERITIES, blurred, corrupt, corruptions, kinds, pixelated, rotated, shuffled
from posterity.errors import InvalidInput

IMAGE_KINDS, TABLE_KINDS = kinds((1, 8, 8)), kinds((4,))


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(12, 3, 9, 14, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(500, 4, generator=torch.Generator().manual_seed(0))


def test_severity_0_is_the_identity(images, rows):
    assert all(torch.equal(corrupt(images, kind, 0), images) for kind in IMAGE_KINDS)
    assert all(torch.equal(corrupt(rows, kind, 0), rows) for kind in TABLE_KINDS)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_images_keep_their_shape_type_and_range(images, kind):
    for severity in SEVERITIES:
        changed = corrupt(images, kind, severity)
        assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
        assert changed.min() >= -1e-6
        assert changed.max() <= 1 + 1e-6
        assert not torch.equal(changed, images)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_what_happens_to_an_image_does_not_depend_on_its_batch(images, kind):
    whole = corrupt(images, kind, 4, seed=3)
    parts = [corrupt(images[part], kind, 4, seed=3, rows=part) for part in torch.arange(12).split(5)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    backwards = torch.arange(11, -1, -1)
    torch.testing.assert_close(
        corrupt(images.flip(0), kind, 4, seed=3, rows=backwards), whole.flip(0), rtol=0, atol=1e-6
    )
    if kind in ("noise", "translation", "occlusion"):
        assert not torch.equal(corrupt(images, kind, 4, seed=4), whole)


@pytest.mark.parametrize("kind", TABLE_KINDS)
def test_what_happens_to_a_row_does_not_depend_on_its_batch(rows, kind):
    whole = corrupt(rows, kind, 4, seed=3)
    assert torch.equal(torch.cat([corrupt(rows[i : i + 70], kind, 4, seed=3, rows=range(i, min(i + 70, 500)))
                                  for i in range(0, 500, 70)]), whole)  # fmt: skip


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_digits_go_further_with_severity(kind):
    digits = load("digits", image_size=32).test_inputs
    distances = [(corrupt(digits, kind, s) - digits).square().mean().sqrt().item() for s in (0, *SEVERITIES)]
    assert all(a < b for a, b in pairwise(distances)), distances


@pytest.mark.parametrize("kind", ["noise", "blur", "contrast", "occlusion"])
def test_every_single_image_goes_further_with_severity(images, kind):
    distances = torch.stack([(corrupt(images, kind, s) - images).square().sum((1, 2, 3)) for s in (0, *SEVERITIES)])
    assert (distances.diff(dim=0) > -1e-6).all()


def test_rows_go_further_with_severity(rows):
    for kind in TABLE_KINDS:
        distances = torch.stack([(corrupt(rows, kind, s) - rows).square().sum(1) for s in (0, *SEVERITIES)])
        assert (distances.diff(dim=0) > -1e-6).all(), kind
        assert (distances.mean(1).diff() > 0).all(), kind


def test_right_angles_are_rot90():
    square = torch.rand(3, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    for turns in (1, 2, 3):
        torch.testing.assert_close(rotated(square, 90.0 * turns), torch.rot90(square, turns, (2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(rotated(square, 0.0), square, rtol=0, atol=1e-6)


def test_a_rotation_keeps_lengths_in_an_oblong_image():
    image = torch.zeros(1, 1, 21, 41)
    image[0, 0, 10, 28] = 1.0  # 8 to the right of the centre
    turned = rotated(image, 90.0)
    assert turned[0, 0, 2, 20].item() == pytest.approx(1, abs=1e-6)  # 8 above it
    slanted = rotated(image, 30.0)[0, 0].double()
    y, x = torch.meshgrid(torch.arange(21.0), torch.arange(41.0), indexing="ij")
    centre = [((slanted * place).sum() / slanted.sum()).item() for place in (y - 10, x - 20)]
    assert centre == pytest.approx([-8 * 0.5, 8 * 0.75**0.5], abs=0.05)  # bilinear weights move it by parts of a pixel


def test_a_translation_moves_every_pixel_by_the_same_whole_step(images):
    steps = {1: (1, 1), 3: (2, 2), 5: (2, 3)}  # ⌈share · (9, 14)⌉
    seen = set()
    for severity, (down, right) in steps.items():
        for image, moved in zip(images, corrupt(images, "translation", severity), strict=True):
            candidates = {
                "down": torch.cat([torch.zeros(3, down, 14), image[:, :-down]], 1),
                "up": torch.cat([image[:, down:], torch.zeros(3, down, 14)], 1),
                "right": torch.cat([torch.zeros(3, 9, right), image[:, :, :-right]], 2),
                "left": torch.cat([image[:, :, right:], torch.zeros(3, 9, right)], 2),
            }
            same = [name for name, expected in candidates.items() if torch.equal(moved, expected)]
            assert len(same) == 1
            seen.add(same[0])
    assert seen == {"down", "up", "right", "left"}


def test_blur_keeps_the_mean_of_each_channel_and_blurs_add_up(images):
    twice = blurred(blurred(images.double(), 0.9), 1.2)
    torch.testing.assert_close(twice, blurred(images.double(), 1.5), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(twice.mean((2, 3)), images.double().mean((2, 3)), rtol=1e-12, atol=0)


def test_blur_is_the_gaussian_for_a_large_std():
    impulse = torch.zeros(1, 1, 1, 401, dtype=torch.float64)
    impulse[..., 200] = 1
    found = blurred(impulse, 8.0)[0, 0, 0]
    torch.testing.assert_close(
        found, torch.from_numpy(gaussian_filter1d(impulse[0, 0, 0].numpy(), 8.0)), rtol=0, atol=3e-4
    )
    place = torch.arange(401.0, dtype=torch.float64) - 200
    assert (found * place.square()).sum().item() == pytest.approx(64.0, rel=1e-9)  # its variance is exact


def test_pixelation_is_a_projection_that_keeps_the_mean(images):
    once = pixelated(images, 0.35)
    torch.testing.assert_close(pixelated(once, 0.35), once, rtol=0, atol=1e-6)
    assert len(once[0, 0].unique()) == 3 * 5  # round(.35 · 9) · round(.35 · 14) cells
    even = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(pixelated(even, 0.25).mean((1, 2, 3)), even.mean((1, 2, 3)))
    expected = torch.nn.functional.avg_pool2d(even, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(pixelated(even, 0.25), expected)


def test_contrast_keeps_the_mean_and_scales_the_std(images):
    dull = corrupt(images, "contrast", 3)
    torch.testing.assert_close(dull.mean((1, 2, 3)), images.mean((1, 2, 3)))
    torch.testing.assert_close(dull.std((1, 2, 3)), 0.35 * images.std((1, 2, 3)))


def test_noise_has_its_std_and_differs_between_images():
    grey = torch.full((200, 1, 16, 16), 0.5)
    noise = corrupt(grey, "noise", 1) - 0.5  # cut off at 5 stds
    assert noise.std().item() == pytest.approx(0.1, rel=4 * (2 * 200 * 256) ** -0.5)
    assert len(noise[:, 0, 0, 0].unique()) == 200


def test_an_occlusion_is_one_grey_square_that_grows():
    black = torch.zeros(50, 1, 20, 20)
    smaller = torch.zeros(50, 1, 20, 20, dtype=torch.bool)
    for severity, side in zip(SEVERITIES, (4, 6, 8, 10, 12), strict=True):
        square = corrupt(black, "occlusion", severity) == 0.5
        assert (square.sum((1, 2, 3)) == side**2).all()
        assert (square.any(2).sum((1, 2)) == side).all()
        assert (square | ~smaller).all()
        smaller = square
    assert len(smaller.flatten(1).unique(dim=0)) > 20


def test_strengths_of_tables(rows):
    torch.testing.assert_close(corrupt(rows, "scaling", 2), 1.5 * rows)
    lost = corrupt(rows, "dropout", 4) == 0
    assert lost.double().mean().item() == pytest.approx(0.5, abs=4 * (0.25 / 2000) ** 0.5)
    assert torch.equal(corrupt(rows, "dropout", 4)[~lost], rows[~lost])
    assert (corrupt(rows, "noise", 3) - rows).std().item() == pytest.approx(1, abs=4 * (2 * 2000) ** -0.5)


def test_corruptions_are_applied_in_original_units():
    digits = load("digits")
    scaled = digits.standardised()
    for kind, apply in corruptions(scaled, seed=5).items():
        expected = scaled.scaling.scale_inputs(corrupt(digits.test_inputs, kind, 4, seed=5))
        torch.testing.assert_close(apply(scaled.test_inputs, 4), expected, rtol=0, atol=1e-4)


def test_images_of_other_units_have_the_range_of_their_training_images():
    digits = load("digits")
    bytes_like = replace(digits, train_inputs=255 * digits.train_inputs, test_inputs=255 * digits.test_inputs)
    found = corruptions(bytes_like, ["occlusion"])["occlusion"](bytes_like.test_inputs, 3)
    torch.testing.assert_close(found, 255 * corrupt(digits.test_inputs, "occlusion", 3))


def test_shuffling_keeps_values_and_takes_the_order(images, rows):
    mixed = shuffled(images)
    assert torch.equal(mixed.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    colours = images.flatten(2).mT.reshape(12, -1, 3)
    for before, after in zip(colours, mixed.flatten(2).mT, strict=True):  # a pixel's channels stay together
        assert {tuple(c) for c in before.tolist()} == {tuple(c) for c in after.tolist()}
    assert torch.equal(shuffled(images[:5]), mixed[:5])
    table = shuffled(rows)
    assert torch.equal(table.sort(0).values, rows.sort(0).values)
    chained = torch.cat([rows, rows[:, :1]], 1)
    broken = torch.corrcoef(shuffled(chained).t())[0, 4].item()
    assert abs(broken) < 4 / 500**0.5


def test_what_does_not_fit_is_refused(images):
    with pytest.raises(InvalidInput, match="kind of corruption 'blurr'. Did you mean 'blur'"):
        corrupt(images, "blurr", 1)
    with pytest.raises(InvalidInput, match="severity=6"):
        corrupt(images, "blur", 6)
    with pytest.raises(InvalidInput, match="divided by 255"):
        corrupt((images * 255).byte(), "blur", 1)
    with pytest.raises(InvalidInput, match="no corruptions"):
        kinds((3, 4))
    with pytest.raises(InvalidInput, match="'rotation'. .*Choices: dropout, noise, scaling"):
        corruptions(load("diabetes"), ["rotation"])
