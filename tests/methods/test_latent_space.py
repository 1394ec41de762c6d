"""The preprocessing in torch and as a scikit-learn transformer, against each other and against its definition."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from torch.testing import assert_close

from otfew.methods.latent_space import isometric_reduction, latent_space, power_transform
from otfew.methods.latent_space_transform import LatentSpaceTransform


@pytest.fixture
def points():
    """Support (2, 6, 40) and query (2, 9, 40)."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(2, 15, 40, dtype=torch.float64, generator=generator).relu()
    return drawn[:, :6], drawn[:, 6:]


@pytest.mark.parametrize(
    "estimator",
    [LatentSpaceTransform(), LatentSpaceTransform(beta=1.0, reduce=False), LatentSpaceTransform(delta=1, gamma=1)],
)
def test_scikit_learns_own_checks(estimator):
    """All of them, without exceptions; the one for array API inputs runs only where SCIPY_ARRAY_API is set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        check_estimator(estimator)


def test_every_step_by_its_definition(points):
    everything = torch.cat(points, 1)[1].numpy()
    rows = [(row + 1e-6) ** 0.4 for row in everything]
    rows = [row / np.linalg.norm(row) ** 0.3 for row in rows]
    mean = np.mean(rows, 0)
    rows = [(row - mean) / np.linalg.norm(row - mean) ** 0.9 for row in rows]
    found = torch.cat(latent_space(*points, beta=0.4, delta=0.3, gamma=0.9), 1)[1]
    np.testing.assert_allclose(found, rows, rtol=1e-12)


def test_support_and_queries_apart(points):
    support, query = power_transform(*points)
    for part, found in zip(points, (support, query), strict=True):
        rows = (part[0] + 1e-6).sqrt()
        rows = rows / rows.norm(dim=-1, keepdim=True)
        rows = rows - rows.mean(0)
        assert_close(found[0], rows / rows.norm(dim=-1, keepdim=True))


@pytest.mark.parametrize("joint", [True, False])
def test_masked_points_move_nothing(joint, points):
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 2] = False
    spoiled = points[0].clone()
    spoiled[:, 2] = torch.nan
    kept = points[0][:, [0, 1, 3, 4, 5]]
    found = latent_space(spoiled, points[1], joint=joint, support_mask=mask)
    expected = latent_space(kept, points[1], joint=joint)
    assert_close(found[0][:, [0, 1, 3, 4, 5]], expected[0])
    assert_close(found[1], expected[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reduction_is_an_isometry_also_of_dependent_points(dtype, points):
    everything = torch.cat(points, 1).to(dtype)
    everything[:, 3] = everything[:, 5]
    everything[:, 4] = 0
    reduced = isometric_reduction(everything)
    assert reduced.shape == (2, 15, 15)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-13
    assert_close(reduced @ reduced.mT, everything @ everything.mT, rtol=tolerance, atol=tolerance)
    few = everything[..., :15]
    assert isometric_reduction(few) is few


@pytest.mark.parametrize("options", [{}, {"beta": 0.7, "delta": 1.0, "gamma": 0.5}, {"delta": 0, "gamma": 0}])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_transformer_is_the_torch_function_up_to_an_isometry(options, dtype, points):
    expected = torch.cat(latent_space(*points, **options), 1)[0]
    given = torch.cat(points, 1)[0].numpy().astype(dtype)
    found = LatentSpaceTransform(**options).fit_transform(given)
    assert found.shape == (15, 15)
    assert found.dtype == dtype
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found @ found.T, expected @ expected.mT, rtol=tolerance, atol=tolerance)
    same = LatentSpaceTransform(**options, reduce=False).fit_transform(given)
    np.testing.assert_allclose(same, expected, rtol=tolerance, atol=tolerance)


def test_the_power_transform_of_pt_map_by_the_transformer(points):
    transformer = LatentSpaceTransform(delta=1, gamma=1, reduce=False)
    for part, expected in zip(points, power_transform(*points), strict=True):
        np.testing.assert_allclose(transformer.fit_transform(part[0].numpy()), expected[0], rtol=1e-12)


def test_later_points_are_projected_and_centred_as_fitted(points):
    support, query = (part[0].numpy() for part in points)
    transformer = LatentSpaceTransform(delta=0, gamma=0).fit(support)
    found = transformer.transform(query)
    centred = (query + 1e-6) ** 0.5 - ((support + 1e-6) ** 0.5).mean(0)
    np.testing.assert_allclose(found, centred @ transformer.components_.T, atol=1e-12)
    assert list(transformer.get_feature_names_out()) == [f"latentspacetransform{i}" for i in range(6)]


def test_signed_features_are_refused_with_the_reason_and_possible_without_the_power(points):
    signed = points[0][0].numpy() - 0.5
    with pytest.raises(ValueError, match=r"the power transform x\^0.5 needs features of at least 0"):
        LatentSpaceTransform().fit(signed)
    with pytest.raises(ValueError, match="the power transform"):
        LatentSpaceTransform().fit(points[0][0].numpy()).transform(signed)
    assert np.isfinite(LatentSpaceTransform(beta=1).fit_transform(signed)).all()
    with pytest.raises(ValueError, match="`gamma` must be a number of at least 0, not -1"):
        LatentSpaceTransform(gamma=-1).fit(points[0][0].numpy())


def test_in_a_pipeline(points):
    pipeline = make_pipeline(FunctionTransformer(np.abs), LatentSpaceTransform())
    assert pipeline.fit_transform(-points[0][0].numpy()).shape == (6, 6)
