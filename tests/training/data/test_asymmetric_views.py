"""Views for student and teacher: one crop, flip and colour at both sizes, mixed alike."""

from functools import partial

import numpy as np
import pytest

from ames.datasets.images import UnreadableImage
from ames.embedders.inputs import InputSpec
from ames.training.data.asymmetric_views import CentreViews, MixedViews
from ames.training.data.augmentation import Augmentation
from ames.training.data.photos import TrainingPhotos
from helpers.photos import save, scene
from helpers.small_networks import IMAGES, photos, write_photos


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


def draws(seed, row=3):
    return partial(lambda key, view: np.random.default_rng([*key, view]), [seed, row])


def made(folder, seed=0, bad=None, **options):
    return MixedViews(16, 32, **{"views": 4} | options)(photos(folder, bad), 3, draws(seed))


def test_shapes_and_kinds(folder):
    student, teacher, share = made(folder)
    assert student.shape == (4, 2, 16, 16, 3)
    assert teacher.shape == (4, 2, 32, 32, 3)
    assert (student.dtype, share.dtype, share.shape) == (np.uint8, np.float32, (4,))
    views = MixedViews(16, 32, views=4)
    assert [x.shape[1:] for x in views.nothing()] == [x.shape for x in (student, teacher, share)]
    alone = MixedViews(16, 32, views=4, mixup=0)
    found = made(folder, mixup=0)
    assert [x.shape[1:] for x in alone.nothing()] == [x.shape for x in found]
    assert found[0].shape == (4, 1, 16, 16, 3)
    np.testing.assert_array_equal(found[2], 1)


def halved(images):
    """Half the resolution, float."""
    n, k, h, w, c = images.shape
    return images.reshape(n, k, h // 2, 2, w // 2, 2, c).astype(float).mean((3, 5))


def test_student_and_teacher_see_the_same_view(folder):
    # crops so large that both sizes are made smaller, by area
    plainly = Augmentation(scale=(0.9, 1), ratio=(1, 1))
    for seed in range(5):
        student, teacher, _ = made(folder, seed, augmentation=plainly)
        assert np.abs(student - halved(teacher)).mean() < 4
        assert np.abs(student - halved(teacher)[::-1]).mean() > 10  # another view is far


def test_an_image_and_its_partner_have_one_seed(tmp_path):
    """Of two images that are the same, the two views are the same."""
    for name in ("a.png", "b.png"):
        save(tmp_path / name, scene(1))
    listed = TrainingPhotos(tmp_path, ["a.png", "b.png"], [0, 1])
    student, teacher, _ = MixedViews(16, 32)(listed, 0, draws(0))
    np.testing.assert_array_equal(student[:, 0], student[:, 1])
    np.testing.assert_array_equal(teacher[:, 0], teacher[:, 1])
    assert (student[0] != student[1]).any()


@pytest.mark.parametrize("seeds", ["independent", "chained"])
def test_draws_depend_on_the_seed_alone_and_differ_between_views(folder, seeds):
    once, again, other = (made(folder, seed, seeds=seeds) for seed in (0, 0, 1))
    for a, b, c in zip(once, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert len({*once[2].tolist()}) == 4


def test_a_chain_follows_from_its_first_view(folder):
    """Views of a chain are the same whatever later numbers of views would have given."""

    def only_first(view):
        assert view == 0
        return draws(0)(0)

    chained, independent = (made(folder, seeds=seeds) for seeds in ("chained", "independent"))
    found = MixedViews(16, 32, views=4, seeds="chained")(photos(folder), 3, only_first)
    np.testing.assert_array_equal(found[0], chained[0])
    np.testing.assert_array_equal(chained[0][0], independent[0][0])  # one start
    assert (chained[0][1] != independent[0][1]).any()


def test_shares_are_of_the_beta_distribution(folder):
    shares = np.concatenate([made(folder, seed, views=8)[2] for seed in range(150)])
    exact = np.random.default_rng(0).beta(0.2, 0.2, 100_000)
    np.testing.assert_allclose(
        np.quantile(shares, [0.25, 0.5, 0.75]), np.quantile(exact, [0.25, 0.5, 0.75]), atol=0.09
    )
    assert np.mean((shares < 0.01) | (shares > 0.99)) == pytest.approx(
        np.mean((exact < 0.01) | (exact > 0.99)), abs=0.05
    )
    equal = np.concatenate([made(folder, seed, views=8, mixup=50.0)[2] for seed in range(5)])
    assert equal.mean() == pytest.approx(0.5, abs=0.05)
    assert equal.std() < 0.08


class Noting(TrainingPhotos):
    """Notes what is read."""

    def read(self, row):
        self.asked.append(row)
        return super().read(row)


def test_partners_are_any_other_image(folder):
    listed = Noting(folder, photos(folder).names, photos(folder).labels)
    listed.asked = []
    for seed in range(40):
        MixedViews(8, 8, views=8)(listed, 3, draws(seed))
    own, partners = listed.asked[::9], [x for i, x in enumerate(listed.asked) if i % 9]
    assert {*own} == {3}
    counts = np.bincount(partners, minlength=IMAGES)
    assert counts[3] == 0
    assert (np.delete(counts, 3) > 3).all()  # of 320 / 23 = 14


def test_a_partner_that_cannot_be_read_is_replaced(folder):
    bad = dict.fromkeys([row for row in range(IMAGES) if row not in (3, 10)], "empty.jpg")
    listed = photos(folder, dict(list(bad.items())[:15]))
    student, _, share = MixedViews(16, 32, views=4)(listed, 3, draws(0))
    assert student.shape == (4, 2, 16, 16, 3)
    np.testing.assert_array_equal(share, made(folder)[2])  # drawn before the partner
    assert listed.unreported > 0
    with pytest.raises(UnreadableImage, match="no partner"):
        MixedViews(16, 32)(photos(folder, bad), 3, draws(0))


def test_one_view_is_the_image_as_in_a_test(folder):
    small, large = InputSpec(16), InputSpec(32)
    found = CentreViews(small, large)(photos(folder), 3, draws(0))
    image = photos(folder).read(3)
    np.testing.assert_array_equal(found[0], small.fit(image)[None, None])
    np.testing.assert_array_equal(found[1], large.fit(image)[None, None])
    assert found[2].tolist() == [1]
    assert [x.shape[1:] for x in CentreViews(small, large).nothing()] == [x.shape for x in found]
