"""``EMD`` promises what ``cv2.EMD`` does, and keeps it where OpenCV stops early."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from otfew.compat import opencv as mine
from otfew.transport import solve

KINDS = [cv2.DIST_USER, cv2.DIST_L1, cv2.DIST_L2, cv2.DIST_C]


def signature(rng, n, dims, normalised):
    made = np.hstack([rng.random((n, 1)), rng.random((n, dims))]).astype(np.float32)
    if n > 1 and rng.random() < 0.3:
        made[0, 0] = 0
    if normalised:
        made[:, 0] /= made[:, 0].sum()
    return made


def test_names():
    assert [mine.DIST_USER, mine.DIST_L1, mine.DIST_L2, mine.DIST_C] == KINDS
    assert cv2.EMD.__doc__.startswith("EMD(signature1, signature2, distType[, cost[, lowerBound[, flow]]])")


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_distances_bounds_and_flows(kind, normalised):
    rng = np.random.default_rng(0)
    for _ in range(100):
        n, m = rng.integers(1, 13, 2)
        dims = int(rng.integers(1, 4))
        first, second = signature(rng, n, dims, normalised), signature(rng, m, dims, normalised)
        cost = rng.random((n, m)).astype(np.float32) if kind == cv2.DIST_USER else None
        bound = None if kind == cv2.DIST_USER or rng.random() < 0.5 else float(rng.random())
        value, lower, flow = mine.EMD(first, second, kind, cost, bound)
        expected, their_lower, their_flow = cv2.EMD(first, second, kind, cost, bound)
        assert type(value) is type(expected) is float
        assert value == pytest.approx(expected, abs=2e-6)
        assert type(lower) is type(their_lower)
        assert lower == (None if their_lower is None else pytest.approx(their_lower, abs=1e-6))
        assert (flow.dtype, flow.shape) == (their_flow.dtype, their_flow.shape)
        for axis in (0, 1):
            assert (flow.sum(axis) <= (second, first)[axis][:, 0] + 1e-5).all()
        assert flow.sum() == pytest.approx(their_flow.sum(), abs=1e-5)
        if cost is not None:
            # In general position; points on a line have several optimal plans.
            np.testing.assert_allclose(flow, their_flow, atol=2e-6)


def test_a_distance_between_centres_that_is_large_enough_is_the_answer():
    near, far = np.array([[1, 0], [1, 2]], np.float32), np.array([[1, 10], [1, 12]], np.float32)
    for bound in (0.0, 9.0, 10.0):
        value, lower, flow = mine.EMD(near, far, mine.DIST_L2, None, bound)
        assert value == lower == 10
        assert not flow.any()
    value, lower, flow = mine.EMD(near, far, mine.DIST_L2, lowerBound=11.0)
    assert (value, lower) == (10, 10)
    assert flow.any()


def test_the_larger_total_divides():
    first, second = np.array([[1], [1]], np.float32), np.array([[4]], np.float32)
    cost = np.array([[1], [3]], np.float32)
    value, _, flow = mine.EMD(first, second, mine.DIST_USER, cost)
    assert value == cv2.EMD(first, second, cv2.DIST_USER, cost)[0] == 1
    np.testing.assert_array_equal(flow, [[1], [1]])


def test_flows_are_written_where_they_are_wanted():
    weights, cost = np.ones((2, 1), np.float32), np.eye(2, dtype=np.float32)
    room = np.empty((2, 2), np.float32)
    assert mine.EMD(weights, weights, mine.DIST_USER, cost, flow=room)[2] is room
    np.testing.assert_array_equal(room, 1 - cost)
    wrong = np.zeros((3, 3), np.float32)
    assert mine.EMD(weights, weights, mine.DIST_USER, cost, flow=wrong)[2].shape == (2, 2)
    assert not wrong.any()


def test_weights_may_be_one_axis():
    """OpenCV 4 reads them as a column, OpenCV 5 as a row."""
    rng = np.random.default_rng(1)
    a, b, cost = (rng.random(shape).astype(np.float32) for shape in (4, 5, (4, 5)))
    assert mine.EMD(a, b, mine.DIST_USER, cost)[0] == mine.EMD(a[:, None], b[:, None], mine.DIST_USER, cost)[0]


def test_costs_count_with_dist_user_alone():
    rng = np.random.default_rng(2)
    first, second = (signature(rng, n, 2, True) for n in (4, 5))
    cost = rng.random((4, 5)).astype(np.float32)
    assert mine.EMD(first, second, mine.DIST_L2, cost)[0] == mine.EMD(first, second, mine.DIST_L2)[0]
    assert cv2.EMD(first, second, cv2.DIST_L2, cost)[0] == cv2.EMD(first, second, cv2.DIST_L2)[0]


def test_large_problems_are_solved_to_the_end():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 2)), rng.standard_normal((200, 2)) + 1
    cost = ((x[:, None] - y) ** 2).sum(-1).astype(np.float32)
    a, b = (rng.dirichlet(np.ones(200)).astype(np.float32)[:, None] for _ in range(2))
    value = mine.EMD(a, b, mine.DIST_USER, cost)[0]
    best = float(solve(cost.astype(float), a[:, 0].astype(float), b[:, 0].astype(float)).value)
    assert value == pytest.approx(best, rel=1e-5)
    assert cv2.EMD(a, b, cv2.DIST_USER, cost)[0] > 1.01 * value


def test_infinity_forbids_a_pair():
    weights, cost = np.ones((2, 1), np.float32), np.array([[np.inf, 1], [2, np.inf]], np.float32)
    assert mine.EMD(weights, weights, mine.DIST_USER, cost)[0] == 1.5
    with pytest.raises(mine.error, match="`cost` forbids every plan"):
        mine.EMD(weights, weights, mine.DIST_USER, cost + np.array([[0], [np.inf]], np.float32))


POINTS, WEIGHTS, COST = np.ones((2, 3), np.float32), np.ones((2, 1), np.float32), np.ones((2, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((WEIGHTS.tolist(), WEIGHTS, -1, COST), "`signature1` is not a numpy array"),
        ((WEIGHTS, WEIGHTS.astype(float), -1, COST), "`signature2` must be float32"),
        ((POINTS, POINTS[:, :2], 2), "equal numbers of columns"),
        ((POINTS[:0], POINTS, 2), "`signature1` must be"),
        ((-POINTS, POINTS, 2), "`signature1` must not contain negative weights"),
        ((POINTS, 0 * POINTS, 2), "`signature2` must contain at least one non-zero"),
        ((WEIGHTS, WEIGHTS, 2), "number of dimensions can be 0 only"),
        ((POINTS, POINTS, 7), "`distType`"),
        ((POINTS, POINTS, -1), "`cost` must be given"),
        ((POINTS, POINTS, -1, COST.astype(float)), "`cost` must be a float32"),
        ((POINTS, POINTS, -1, COST[:1]), "`cost` must be .*does not match"),
        ((POINTS, POINTS, -1, COST, 0.5), "`lowerBound` cannot be calculated"),
    ],
    ids=lambda x: str(x)[-30:],
)
def test_what_opencv_refuses(arguments, message):
    with pytest.raises(cv2.error):
        cv2.EMD(*arguments)
    with pytest.raises(cv2.error, match=message) as caught:
        mine.EMD(*arguments)
    assert isinstance(caught.value, mine.error)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((POINTS * np.float32(np.nan), POINTS, 2), "NaN"),
        ((WEIGHTS, WEIGHTS, -1, COST * np.float32(np.nan)), "`cost` holds NaN"),
    ],
    ids=["weights", "cost"],
)
def test_what_opencv_lets_pass(arguments, message):
    with pytest.raises(mine.error, match=message):
        mine.EMD(*arguments)


def test_an_error_without_opencv():
    code = (
        "import sys, numpy as np\n"
        "from otfew.compat.opencv import EMD, error\n"
        "try: EMD(np.ones(2), np.ones(2), -1)\n"
        "except error as e: print(type(e).__name__, 'cv2' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.split() == ["error", "False"]
