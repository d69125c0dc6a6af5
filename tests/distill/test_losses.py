"""Every distance and every loss module against its formula in NumPy float64."""

from importlib import import_module

import naive_losses as naive
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from itrd_distill.data import Batch
from itrd_distill.losses import Context, Outputs, create_loss, loss_names
from itrd_distill.losses.kd import kd
from itrd_distill.losses.memory import NegativeSampler
from itrd_distill.losses.review import pyramid_distance
from itrd_distill.losses.wcord import transport_cost
from itrd_distill.models import Features

N, LABELS = 6, torch.arange(60) % 5


def tensor(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def models():
    """Outputs of a student and a teacher in float64, three stages each, the last ones of unlike sizes."""
    shapes_s, shapes_t = [(4, 8, 8), (4, 8, 8), (6, 4, 4)], [(5, 8, 8), (5, 8, 8), (8, 2, 2)]
    outputs = []
    for seed, (shapes, width) in enumerate([(shapes_s, 6), (shapes_t, 8)]):
        stages = tuple(tensor(N, *shape, seed=10 * seed + i) for i, shape in enumerate(shapes))
        penultimate = tensor(N, width, seed=7 + seed).requires_grad_(seed == 0)
        outputs.append(Outputs(tensor(N, 5, seed=5 + seed), Features(stages, penultimate)))
    return outputs


@pytest.fixture
def batch():
    index = torch.tensor([3, 8, 14, 30, 31, 59])
    return Batch(torch.zeros(N, 1, 8, 8), LABELS[index], index)


def in_float32(model):
    stages, penultimate = model.features
    return Outputs(model.logits.float(), Features(tuple(stage.float() for stage in stages), penultimate.float()))


def create(name, models, **options):
    torch.manual_seed(0)
    student, teacher = models
    return create_loss(name, Context(student, teacher, LABELS), **options).double()


FUNCTIONS = {
    "kd": ((N, 5), (N, 5), lambda s, t: naive.kd(s, t, 4.0)),
    "fitnet": ((N, 3, 4, 4), (N, 3, 4, 4), naive.fitnet),
    "at": ((N, 4, 8, 8), (N, 7, 3, 3), naive.at),
    "sp": ((N, 4, 2, 2), (N, 3, 4, 4), naive.sp),
    "cc": ((N, 5), (N, 5), naive.cc),
    "rkd": ((N, 5), (N, 9), naive.rkd),
    "pkt": ((N, 5), (N, 9), naive.pkt),
    "ft": ((N, 4, 3, 3), (N, 4, 7, 7), naive.ft),
    "nst": ((N, 4, 5, 5), (N, 3, 8, 8), naive.nst),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_distance_is_its_formula(name):
    shape_s, shape_t, formula = FUNCTIONS[name]
    s, t = tensor(*shape_s, seed=1).requires_grad_(), tensor(*shape_t, seed=2)
    distance = getattr(import_module(f"itrd_distill.losses.{name}"), name)
    value = distance(s, t)
    assert value.dim() == 0
    np.testing.assert_allclose(value.item(), formula(s.detach().numpy(), t.numpy()), rtol=1e-9)
    assert torch.autograd.gradcheck(lambda s: distance(s, t), s)
    assert distance(t, t).item() == pytest.approx(0, abs=1e-12)


def test_kd_takes_a_temperature():
    s, t = tensor(N, 5, seed=1), tensor(N, 5, seed=2)
    np.testing.assert_allclose(kd(s, t, 2.5).item(), naive.kd(s.numpy(), t.numpy(), 2.5), rtol=1e-12)


@pytest.mark.parametrize("name", ["kd", "at", "nst", "sp", "rkd", "pkt"])
def test_direct_loss_reads_the_right_outputs(name, models, batch):
    student, teacher = models
    total, parts = create(name, models, weight=3.0)(student, teacher, batch)
    if name == "kd":
        pairs = [(student.logits, teacher.logits)]
    elif name in ("rkd", "pkt"):
        pairs = [(student.features.penultimate, teacher.features.penultimate)]
    else:
        stages = list(zip(student.features.stages, teacher.features.stages, strict=True))
        pairs = stages[2:] if name == "sp" else stages[1:]
    expected = sum(FUNCTIONS[name][2](a.detach().numpy(), b.numpy()) for a, b in pairs)
    np.testing.assert_allclose(parts[name].item(), expected, rtol=1e-9)
    np.testing.assert_allclose(total.item(), 3 * expected, rtol=1e-9)


def test_stages_are_paired_from_the_last(models, batch):
    student, teacher = models
    longer = teacher._replace(
        features=Features((tensor(N, 2, 8, 8, seed=9), *teacher.features.stages), teacher.features.penultimate)
    )
    loss = create("at", models)
    assert loss(student, longer, batch).total == loss(student, teacher, batch).total


def test_fitnet_regresses_the_student_to_the_teacher(models, batch):
    loss = create("fitnet", models, stage=2, weight=2.0).eval()
    student, teacher = models
    hint = torch.relu(loss.regressor[0](student.features.stages[2]) / np.sqrt(1 + 1e-5))
    expected = naive.fitnet(hint.detach().numpy(), teacher.features.stages[2].numpy())
    np.testing.assert_allclose(loss(student, teacher, batch).total.item(), 2 * expected, rtol=1e-9)


def test_cc_embeds_both(models, batch):
    student, teacher = models
    loss = create("cc", models, width=7)
    s = loss.embed_s(student.features.penultimate).detach().numpy()
    t = loss.embed_t(teacher.features.penultimate).detach().numpy()
    np.testing.assert_allclose(loss(student, teacher, batch).total.item(), 0.02 * naive.cc(s, t), rtol=1e-9)


def test_ft_compares_factors_and_its_preparation_reconstructs(models, batch):
    student, teacher = models
    loss = create("ft", models).eval()
    maps = teacher.features.stages[-1]
    factors = loss.encoder(maps)
    assert factors.shape == (N, 4, 2, 2)
    translated = loss.translator(student.features.stages[-1])
    expected = 200 * naive.ft(translated.detach().numpy(), factors.detach().numpy())
    np.testing.assert_allclose(loss(student, teacher, batch).total.item(), expected, rtol=1e-9)
    reconstruction = naive.fitnet(loss.decoder(factors).detach().numpy(), maps.numpy())
    np.testing.assert_allclose(loss.preparation(teacher).item(), reconstruction, rtol=1e-9)
    assert not any(p.requires_grad for part in loss.prepared() for p in part.parameters())


def embedded(loss, models):
    z = (loss.embed_s(models[0].features.penultimate), loss.embed_t(models[1].features.penultimate))
    return [torch.nn.functional.normalize(e).float().double().detach().numpy() for e in z]


def test_crd_is_nce_against_both_banks_and_then_remembers(models, batch):
    loss = create("crd", models, width=4, negatives=9, temperature=0.5, momentum=0.25).float()
    student, teacher = [
        Outputs(m.logits.float(), Features(m.features.stages, m.features.penultimate.float())) for m in models
    ]
    chosen = torch.arange(N * 9).view(N, 9)
    loss.sampler.forward = lambda labels, negatives: chosen
    everything = torch.cat([batch.index[:, None], chosen], 1).numpy()
    e_s, e_t = embedded(loss, (student, teacher))
    z_s = z_t = None
    for _ in range(2):  # the second batch keeps the first one's normalisation
        bank_s, bank_t = loss.bank_s.bank.double().numpy(), loss.bank_t.bank.double().numpy()
        toward_t, z_s = naive.nce(e_s, bank_t, everything, 0.5, z_s)
        toward_s, z_t = naive.nce(e_t, bank_s, everything, 0.5, z_t)
        total, parts = loss(student, teacher, batch)
        np.testing.assert_allclose(parts["crd"].item(), toward_t + toward_s, rtol=1e-4)
        np.testing.assert_allclose(total.item(), 0.8 * parts["crd"].item(), rtol=1e-5)
        followed = 0.25 * bank_s[batch.index] + 0.75 * e_s
        followed /= np.linalg.norm(followed, axis=1, keepdims=True)
        np.testing.assert_allclose(loss.bank_s.bank[batch.index].numpy(), followed, rtol=1e-4, atol=1e-6)
        total.backward()
    untouched = [i for i in range(60) if i not in batch.index]
    np.testing.assert_array_equal(loss.bank_s.bank[untouched].double().numpy(), bank_s[untouched])
    assert loss.embed_s.weight.grad.abs().max() > 0
    assert loss.embed_t.weight.grad.abs().max() > 0


def test_negatives_are_of_other_classes_and_cover_them():
    labels = torch.tensor([2, 0, 0, 1, 2, 2, 0, 4])
    drawn = NegativeSampler(labels)(torch.tensor([0, 1, 2, 4]), 3000)
    for own, row in zip([0, 1, 2, 4], drawn, strict=True):
        others = (labels != own).nonzero().flatten()
        counts = torch.bincount(row, minlength=len(labels))
        assert counts[labels == own].sum() == 0
        # Uniform: each of the others 3000 / len(others) times, within five standard deviations.
        expected = 3000 / len(others)
        assert (counts[others] - expected).abs().max() < 5 * expected**0.5


def test_wcord_is_the_dual_and_the_primal_distance(models, batch):
    loss = create("wcord", models, width=4, negatives=5).float().eval()
    student, teacher = [
        Outputs(m.logits.float(), Features(m.features.stages, m.features.penultimate.float())) for m in models
    ]
    chosen = torch.arange(N * 5).view(N, 5) + 7
    loss.sampler.forward = lambda labels, negatives: chosen
    e_s, e_t = embedded(loss, (student, teacher))
    bank_s, bank_t = loss.bank_s.bank.double().numpy(), loss.bank_t.bank.double().numpy()
    joint = np.mean([e_s[i] @ e_t[i] for i in range(N)])
    product = [
        np.mean([a[i] @ bank[k] for i in range(N) for k in chosen[i]]) for a, bank in ((e_s, bank_t), (e_t, bank_s))
    ]
    total, parts = loss(student, teacher, batch)
    np.testing.assert_allclose(parts["wcord_global"].item(), sum(product) - 2 * joint, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        total.item(), 0.8 * parts["wcord_global"].item() + 0.05 * parts["wcord_local"].item(), rtol=1e-5
    )
    assert torch.linalg.matrix_norm(loss.embed_s.weight, ord=2) < 1.2
    total.backward()


def test_transport_cost_nears_the_best_assignment_and_its_gradient_is_the_plan():
    cost = torch.rand(7, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()
    rows, columns = linear_sum_assignment(cost.detach().numpy())
    exact = cost.detach().numpy()[rows, columns].mean()
    value = transport_cost(cost, 0.005, 500)
    assert value.item() == pytest.approx(exact, abs=2e-3)
    value.backward()
    torch.testing.assert_close(cost.grad.sum(0), torch.full((7,), 1 / 7, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(cost.grad.sum(1), torch.full((7,), 1 / 7, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [8, 4, 2, 1])
def test_pyramid_distance_is_its_formula(size):
    s, t = tensor(N, 3, size, size, seed=1), tensor(N, 3, size, size, seed=2)
    np.testing.assert_allclose(pyramid_distance(s, t).item(), naive.pyramid(s.numpy(), t.numpy()), rtol=1e-12)


def test_review_fuses_backwards(batch):
    """With identities for convolutions and even shares of attention the fused maps are means that can be named."""
    features = Features((tensor(N, 2, 4, 4, seed=0), tensor(N, 2, 4, 4, seed=1)), tensor(N, 2, seed=2))
    student = Outputs(tensor(N, 5, seed=3), features)
    teacher = Outputs(student.logits, Features((features.stages[0], tensor(N, 2, 2, 2, seed=4)), tensor(N, 2, seed=5)))
    loss = create("review", (student, teacher), weight=2.0, ramp_epochs=4).eval()
    scale = np.sqrt(1 + 1e-5)
    with torch.no_grad():
        for fusion in loss.fusions:
            fusion.enter[0].weight.copy_(torch.eye(2, dtype=torch.float64)[:, :, None, None] * scale)
            fusion.leave[0].weight.zero_()[:, :, 1, 1] = torch.eye(2, dtype=torch.float64) * scale
            if fusion.attention is not None:
                fusion.attention[0].weight.zero_()
                fusion.attention[0].bias.zero_()
    last = features.penultimate[:, :, None, None]
    fused = ((features.stages[1] + last) / 2)[:, :, ::2, ::2]  # nearest: the first of each two
    expected = naive.pyramid(fused.numpy(), teacher.features.stages[1].numpy())
    expected += naive.pyramid(last.numpy(), teacher.features.penultimate[:, :, None, None].numpy())
    for epoch, ramp in ((0, 0.0), (1, 0.25), (9, 1.0)):
        loss.epoch = epoch
        total, parts = loss(student, teacher, batch)
        np.testing.assert_allclose(parts["review"].item(), expected, rtol=1e-9)
        np.testing.assert_allclose(total.item(), 2 * ramp * expected, rtol=1e-9)


@pytest.mark.parametrize(("beta_corr", "beta_mi"), [(2.0, 1.0), (2.0, 0.0), (0.0, 1.0)])
def test_itrd_logs_unweighted_terms(beta_corr, beta_mi, models, batch):
    loss = create("itrd", models, beta_corr=beta_corr, beta_mi=beta_mi)
    total, parts = loss(*models, batch)
    correlation, mutual_information = loss.criterion.terms(*(m.features.penultimate for m in models))
    expected = {"correlation": (beta_corr, correlation), "mutual_information": (beta_mi, mutual_information)}
    assert set(parts) == {name for name, (beta, _) in expected.items() if beta}
    for name, part in parts.items():
        torch.testing.assert_close(part, expected[name][1].detach())
    torch.testing.assert_close(total, beta_corr * correlation + beta_mi * mutual_information)


@pytest.mark.parametrize("name", loss_names())
def test_unknown_options_are_named(name, models):
    with pytest.raises(ValueError, match=f"loss {name} takes the options .*'colour'"):
        create(name, models, colour=1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fitnet", {"stage": 3}, "between 0 and 2"),
        ("crd", {}, "at least two classes"),
        ("review", {}, "as many stages"),
    ],
)
def test_what_cannot_be_built_is_refused(name, options, message, models):
    labels = torch.zeros(10, dtype=torch.long) if name == "crd" else LABELS
    student, teacher = models
    if name == "review":
        teacher = teacher._replace(features=Features(teacher.features.stages[1:], teacher.features.penultimate))
    with pytest.raises(ValueError, match=message):
        create_loss(name, Context(student, teacher, labels), **options)


@pytest.mark.parametrize("name", loss_names())
def test_a_loss_that_says_it_reads_no_logits_reads_none(name, models, batch):
    """A teacher of other classes, even one whose logits are NaN, teaches the same by its features."""
    student, teacher = map(in_float32, models)
    other = teacher._replace(logits=torch.full((N, 37), torch.nan))
    options = {"crd": {"negatives": 9}, "wcord": {"negatives": 9}, "fitnet": {"stage": 1}}.get(name, {})
    if name == "kd":
        with pytest.raises(
            ValueError, match=r"loss kd compares logits, .* 37 classes and the student 5: .*\(fitnet, at,"
        ):
            create_loss(name, Context(student, other, LABELS))
        return
    totals = []
    for seen in (teacher, other):
        torch.manual_seed(0)
        criterion = create_loss(name, Context(student, seen, LABELS), **options)
        criterion.epoch = 1
        totals.append(criterion(student, seen, batch).total)
    assert totals[0].isfinite()
    assert torch.equal(*totals)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["crd", "wcord"])
def test_memory_banks_take_the_type_of_the_training(name, dtype, models, batch):
    """As Lightning converts what it trains, in place; the figures are those of float32 but for rounding."""
    student, teacher = map(in_float32, models)

    def run(cast):
        torch.manual_seed(0)
        criterion = create_loss(name, Context(student, teacher, LABELS), negatives=9)
        criterion.to(cast)
        outputs = [Outputs(m.logits, Features((), m.features.penultimate.to(cast))) for m in (student, teacher)]
        totals = []
        for _ in range(2):
            torch.manual_seed(1)
            totals.append(criterion(*outputs, batch).total.float())
        assert criterion.bank_s.bank.dtype == cast
        return torch.stack(totals)

    torch.testing.assert_close(run(dtype), run(torch.float32), rtol=0.05, atol=0.05)
