"""Where models start from: equal layers, a matcher before any training, a student near its teacher."""

import pytest
import torch
import torch.nn.functional as F

from ames.features import LocalFeatures
from ames.models.ames import AMES

SIZE = {"local_dim": 64, "model_dim": 64, "num_encoder_layers": 3, "dim_feedforward": 64}
SHARED = tuple(range(24))  # descriptors that pair i has in common, of 24


def pairs_of_growing_overlap(seed):
    """24 pairs of one query image; database image i shares i noisy descriptors with it."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 24, 64, generator=generator).expand(24, -1, -1)
    database = torch.randn(24, 24, 64, generator=generator)
    for i in SHARED:
        noise = torch.randn(i, 64, generator=generator)
        database[i, :i] = query[i, :i] + 0.3 * noise
    return LocalFeatures.from_descriptors(query), LocalFeatures.from_descriptors(database)


def rank_correlation(a, b):
    ranks = torch.stack((a.argsort().argsort(), b.argsort().argsort())).double()
    return torch.corrcoef(ranks)[0, 1]


@torch.inference_mode()
def logits(model, seed):
    return model.eval().pairs(*pairs_of_growing_overlap(seed))


@pytest.mark.parametrize("binarized", [False, True])
def test_paper_init_starts_all_layers_from_the_same_weights(binarized):
    first, *others = AMES(**SIZE, binarized=binarized, init="paper").decoder.stack
    assert len(others) == 2
    for layer in others:
        for name, weights in first.state_dict().items():
            assert torch.equal(layer.state_dict()[name], weights), name


def test_layers_of_equal_weights_are_trained_each_by_itself():
    first, second, _ = AMES(**SIZE, init="paper").decoder.stack
    with torch.no_grad():
        first.cross_attn.in_proj_weight.add_(1)
    assert not torch.equal(first.cross_attn.in_proj_weight, second.cross_attn.in_proj_weight)


@pytest.mark.parametrize("normalize_before", [False, True])
def test_an_untrained_matcher_orders_pairs_by_what_they_share(normalize_before):
    for seed in range(3):
        torch.manual_seed(seed)
        model = AMES(**SIZE, init="matching", normalize_before=normalize_before)
        assert rank_correlation(logits(model, seed), torch.tensor(SHARED)) > 0.98


def test_the_paper_s_start_knows_nothing_of_matches():
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        found.append(rank_correlation(logits(AMES(**SIZE), seed), torch.tensor(SHARED)))
    assert min(found) < 0.9


def test_a_matcher_separates_related_from_unrelated_pairs():
    torch.manual_seed(0)
    model = AMES(**SIZE, init="matching").eval()
    query = F.normalize(torch.randn(20, 30, 64), dim=-1)
    other = F.normalize(torch.randn(20, 30, 64), dim=-1)
    related = torch.cat((query[:, 15:], other[:, :15]), dim=1)  # half of the descriptors are equal
    with torch.inference_mode():
        positive = model.pairs(LocalFeatures.from_descriptors(query), LocalFeatures.from_descriptors(related))
        negative = model.pairs(LocalFeatures.from_descriptors(query), LocalFeatures.from_descriptors(other))
    assert positive.min() > negative.max()


def test_a_matcher_needs_room_in_each_head():
    with pytest.raises(ValueError, match="at least 4 dimensions a head, has 2"):
        AMES(local_dim=8, model_dim=8, nhead=4, init="matching")


def test_projection_of_a_matcher_keeps_its_reserved_dimensions_free():
    torch.manual_seed(0)
    model = AMES(**SIZE, init="matching")
    model.fit_projection(torch.randn(500, 64))
    assert model.project.weight[-4:].abs().max() == 0  # two heads: two flags, two evidences
    assert model.project.weight[:-4].norm(dim=1).min() > 0


def test_projection_is_centred_on_the_descriptors():
    torch.manual_seed(0)
    x = F.normalize(torch.rand(500, 64), dim=-1)  # far from centred
    model = AMES(**SIZE)
    model.fit_projection(x)
    projected = model.project(x)
    assert projected.mean(0).abs().max() < 1e-4
    covariance = projected.T @ projected / len(x)  # PCA: dimensions do not correlate
    off_diagonal = covariance - covariance.diag().diag()
    assert off_diagonal.abs().max() < 1e-3 * covariance.diag().max()


def test_an_untrained_student_ranks_as_its_teacher_does():
    torch.manual_seed(0)
    sample = torch.randn(3000, 64)
    teacher = AMES(**SIZE, init="matching")
    teacher.fit_projection(sample)
    student = AMES(**SIZE, binarized=True)
    student.fit_projection(sample)
    target = logits(teacher, 0)
    before = rank_correlation(logits(student, 0), target)
    student.start_from(teacher, sample)
    after = rank_correlation(logits(student, 0), target)
    assert before < 0.9 < 0.98 < after


@torch.inference_mode()
def test_the_tokens_of_an_untrained_student_are_near_its_teacher_s():
    torch.manual_seed(0)
    sample, fresh = torch.randn(3000, 64), LocalFeatures.from_descriptors(torch.randn(1, 200, 64))
    teacher, student = AMES(**SIZE, init="matching").eval(), AMES(**SIZE, binarized=True).eval()
    teacher.fit_projection(sample)
    student.fit_projection(sample)

    def likeness():
        tokens = [model.tokens(fresh).descriptors for model in (teacher, student)]
        return F.cosine_similarity(*tokens, dim=-1).mean()

    assert likeness() < 0.3
    student.start_from(teacher, sample)
    assert likeness() > 0.7


def test_the_teacher_is_copied_and_not_shared():
    torch.manual_seed(0)
    sample = torch.randn(1000, 64)
    teacher, student = AMES(**SIZE, init="matching"), AMES(**SIZE, binarized=True)
    kept = {name: x.clone() for name, x in teacher.state_dict().items()}
    projection = student.binarize.W.detach().clone()
    student.start_from(teacher, sample)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
    for name, x in teacher.state_dict().items():
        assert torch.equal(x, kept[name]), name
    torch.testing.assert_close(student.binarize.W - 1, projection)  # fitted before, left as it was
