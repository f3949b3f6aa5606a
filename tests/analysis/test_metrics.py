"""Each metric against a closed form, and against NumPy, SciPy or scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.metrics import mutual_info_score

from sgmae_jax.analysis import metrics
from sgmae_jax.masking import cosine_relations, normalised_cut_dense
from sgmae_jax.masking.relations import edge_weights

GRID = (3, 4)
N = 12


def random_features(seed=0, batch=2, tokens=N, width=5):
    return jax.random.normal(jax.random.key(seed), (batch, tokens, width))


def random_attention(seed=0, batch=2, heads=3, tokens=N):
    scores = jax.random.normal(jax.random.key(seed), (batch, heads, *[1 + tokens] * 2))
    return jax.nn.softmax(2 * scores)


def clusters(sizes=(5, 7), inside=0.75, across=0.25):
    """Relations of two clean clusters, and the clusters."""
    side = np.arange(sum(sizes)) < sizes[0]
    same = side[:, None] == side
    relations = np.where(same, inside, across)
    np.fill_diagonal(relations, 1.0)
    return jnp.asarray(relations[None], jnp.float32), jnp.asarray(side[None])


# ---- intra- and inter-cluster weights


def test_weights_of_clean_clusters():
    intra, inter = jax.jit(metrics.intra_inter_weights)(*clusters())
    assert intra.tolist() == [0.75] and inter.tolist() == [0.25]


def test_weights_are_means_over_pairs():
    relations = cosine_relations(random_features())
    side = np.random.default_rng(0).random((2, N)) < 0.4
    intra, inter = metrics.intra_inter_weights(relations, jnp.asarray(side))
    other, _ = metrics.intra_inter_weights(relations, jnp.asarray(~side))
    np.testing.assert_allclose(other, intra, rtol=1e-5)
    for image in range(2):
        same, across = [], []
        for i in range(N):
            for j in range(i):
                pair = same if side[image, i] == side[image, j] else across
                pair.append(float(relations[image, i, j]))
        assert float(intra[image]) == pytest.approx(np.mean(same), abs=1e-5)
        assert float(inter[image]) == pytest.approx(np.mean(across), abs=1e-5)


def test_without_pairs_across_there_is_no_weight():
    relations, _ = clusters()
    _, inter = metrics.intra_inter_weights(relations, jnp.zeros((1, N), bool))
    assert inter.tolist() == [0]


# ---- variances


def test_feature_variance_of_known_sets():
    alike = jnp.ones((1, 6, 4)) * jnp.arange(1, 7)[:, None]
    opposite = jnp.asarray([[[3.0, 0], [-1, 0], [2, 0], [-9, 0]]])
    orthogonal = jnp.eye(4)[None]
    found = [metrics.feature_variance(x)[0] for x in (alike, opposite, orthogonal)]
    np.testing.assert_allclose(found, [0, 1, 0.75], atol=1e-6)


def test_feature_variance_is_numpys():
    features = np.asarray(random_features())
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    expected = unit.var(1).sum(-1)
    for scale in (1.0, 1e25, 1e-25):
        found = jax.jit(metrics.feature_variance)(features * np.float32(scale))
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_mask_token_variance_looks_at_mask_tokens_alone():
    features = random_features()
    hidden = jnp.asarray([[1.0] * 5 + [0.0] * 7] * 2)
    expected = metrics.feature_variance(features[:, :5])
    found = metrics.mask_token_variance(features, hidden)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    shouted = features.at[:, 5:].multiply(-100)
    np.testing.assert_array_equal(metrics.mask_token_variance(shouted, hidden), found)


def test_a_zero_vector_is_no_nan():
    assert metrics.feature_variance(jnp.zeros((1, 4, 3))).tolist() == [0]


def test_similarity_variance():
    relations, _ = clusters((6, 6), 1.0, 0.0)
    pairs = np.array([1.0] * 30 + [0.0] * 36)
    found = jax.jit(metrics.similarity_variance)(relations)
    assert float(found[0]) == pytest.approx(pairs.var(), rel=1e-5)
    mixed = np.asarray(cosine_relations(random_features()))
    expected = [m[np.triu_indices(N, 1)].var() for m in mixed]
    np.testing.assert_allclose(
        metrics.similarity_variance(jnp.asarray(mixed)), expected, rtol=1e-4
    )


# ---- divergence


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_divergence_is_scipys(temperature):
    final = cosine_relations(random_features(0))
    now = cosine_relations(random_features(1))
    rows = [softmax(np.asarray(m, np.float64) / temperature, -1) for m in (final, now)]
    expected = entropy(*rows, axis=-1).mean(-1)
    found = jax.jit(metrics.relation_divergence)(final, now, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert (found > 0).all()


def test_divergence_from_itself_is_zero_and_it_is_directed():
    final = cosine_relations(random_features(0))
    now = cosine_relations(random_features(1))
    assert metrics.relation_divergence(final, final).tolist() == [0, 0]
    there = metrics.relation_divergence(final, now, 0.1)
    back = metrics.relation_divergence(now, final, 0.1)
    assert not np.allclose(there, back, rtol=1e-3)


# ---- attention


def with_class_token(patches):
    """Maps whose patches attend as given, and with half of it to the class token."""
    patches = jnp.asarray(patches, jnp.float32)
    full = jnp.full((1, 1, *[1 + len(patches)] * 2), 0.5)
    return full.at[0, 0, 1:, 1:].set(patches / 2)


def test_distance_of_known_maps():
    found = metrics.attention_distance(with_class_token(np.eye(N)), GRID)
    assert found.shape == (1, 1) and float(found[0, 0]) == 0
    shifted = with_class_token(np.roll(np.eye(2 * 2), 1, axis=1))
    # In 2x2: 0 -> 1 and 2 -> 3 are neighbours, 1 -> 2 and 3 -> 0 lie across.
    expected = (2 + 2 * np.sqrt(2)) / 4
    found = metrics.attention_distance(shifted, (2, 2))
    assert float(found[0, 0]) == pytest.approx(expected)


def test_distance_is_numpy_with_loops():
    attention = random_attention()
    found = jax.jit(metrics.attention_distance, static_argnums=1)(attention, GRID)
    maps = np.asarray(attention, np.float64)[:, :, 1:, 1:]
    maps /= maps.sum(-1, keepdims=True)
    place = np.array([(i // 4, i % 4) for i in range(N)])
    for image in range(2):
        for head in range(3):
            expected = np.mean(
                [
                    sum(
                        maps[image, head, q, k] * np.linalg.norm(place[q] - place[k])
                        for k in range(N)
                    )
                    for q in range(N)
                ]
            )
            assert float(found[image, head]) == pytest.approx(expected, rel=1e-5)


def test_information_is_one_for_identity_and_zero_for_equal_rows():
    identity = metrics.attention_nmi(with_class_token(np.eye(N)))
    assert float(identity[0, 0]) == pytest.approx(1, abs=1e-5)
    row = np.random.default_rng(0).dirichlet(np.ones(N))
    alike = metrics.attention_nmi(with_class_token(np.tile(row, (N, 1))))
    assert float(alike[0, 0]) == pytest.approx(0, abs=1e-6)
    one_key = np.zeros((N, N))
    one_key[:, 3] = 1
    assert metrics.attention_nmi(with_class_token(one_key))[0, 0] == 0


def test_information_is_scikit_learns():
    rng = np.random.default_rng(0)
    for _ in range(4):
        # Equally many keys for every query, as whole numbers.
        counts = rng.multinomial(50, rng.dirichlet(np.ones(N)), N)
        shared = mutual_info_score(None, None, contingency=counts)
        expected = shared / np.sqrt(np.log(N) * entropy(counts.sum(0)))
        found = jax.jit(metrics.attention_nmi)(with_class_token(counts / 50))
        assert float(found[0, 0]) == pytest.approx(expected, rel=1e-4)


def test_heads_and_images_are_apart():
    attention = random_attention()
    for metric in (
        metrics.attention_nmi,
        lambda maps: metrics.attention_distance(maps, GRID),
    ):
        alone = metric(attention[1:, 2:])
        np.testing.assert_allclose(metric(attention)[1:, 2:], alone, rtol=1e-5)


# ---- spectrum


def test_the_spectrum_counts_clean_clusters():
    relations, _ = clusters((5, 7), 1.0, 0.0)
    values = jax.jit(metrics.spectrum)(relations)[0]
    np.testing.assert_allclose(values[:2], 1, atol=1e-3)
    np.testing.assert_allclose(values[2:], 0, atol=1e-3)


def test_the_spectrum_is_that_of_the_cut():
    relations = cosine_relations(random_features())
    values = np.asarray(metrics.spectrum(relations))
    assert (np.diff(values) <= 1e-6).all() and (np.abs(values) <= 1 + 1e-5).all()
    weights = edge_weights(relations)
    cut = normalised_cut_dense(weights)
    np.testing.assert_allclose(1 - values[:, 1], cut.eigenvalue, atol=1e-5)
    np.testing.assert_allclose(values[:, 1] - values[:, 2], cut.gap, atol=1e-5)
    exact = np.asarray(weights, np.float64)
    degree = exact.sum(-1) ** -0.5
    matrix = exact * degree[:, :, None] * degree[:, None]
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[:, ::-1], atol=1e-5)


# ---- Fourier


def waves(grid, across, down):
    """A cosine of so many periods over the grid, on top of a constant 3."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    phase = 2 * np.pi * (across * x / grid[1] + down * y / grid[0])
    return jnp.asarray((3 + np.cos(phase)).reshape(1, -1, 1), jnp.float32)


@pytest.mark.parametrize("periods", [1, 2, 3, 4])
def test_a_wave_shows_at_its_frequency(periods):
    grid = (8, 8)
    across = metrics.relative_log_amplitude(waves(grid, periods, 0), grid)
    down = metrics.relative_log_amplitude(waves(grid, 0, periods), grid)
    np.testing.assert_allclose(across, down, atol=1e-2)
    assert int(across[0, 1:].argmax()) + 1 == periods
    assert metrics.frequencies(grid)[periods] == periods / 4


def test_amplitude_is_relative_and_by_rings():
    features = random_features(tokens=24, width=3)
    grid = (4, 6)
    found = jax.jit(metrics.relative_log_amplitude, static_argnums=1)(features, grid)
    assert found.shape == (2, len(metrics.frequencies(grid)))
    np.testing.assert_array_equal(found[:, 0], 0)
    np.testing.assert_allclose(
        metrics.relative_log_amplitude(7 * features, grid), found, atol=1e-3
    )
    maps = np.asarray(features, np.float64).reshape(2, 4, 6, 3)
    for image in range(2):
        log = np.log(np.abs(np.fft.fft2(maps[image], axes=(0, 1))) + 1e-6).mean(-1)
        rings = {0: [], 1: [], 2: []}
        for down in range(4):
            for across in range(6):
                y = min(down, 4 - down) / 2
                x = min(across, 6 - across) / 3
                near = round(float(np.hypot(y, x)) * 2)
                ring = 0 if down == across == 0 else max(near, 1)
                rings.get(ring, []).append(log[down, across])
        expected = [np.mean(ring) - log[0, 0] for ring in rings.values()]
        np.testing.assert_allclose(found[image], expected, atol=1e-4)


def test_noise_has_more_high_frequencies_than_a_smooth_map():
    grid = (14, 14)
    noise = random_features(tokens=196) + 5
    smooth = waves(grid, 1, 0)
    high = [metrics.relative_log_amplitude(x, grid)[0, -1] for x in (noise, smooth)]
    assert high[0] > high[1]


# ---- all of them


def test_low_precision_features_give_float32():
    features = random_features().astype(jnp.bfloat16)
    attention = random_attention().astype(jnp.bfloat16)
    for found in (
        metrics.feature_variance(features),
        metrics.relative_log_amplitude(features, GRID),
        metrics.attention_distance(attention, GRID),
        metrics.attention_nmi(attention),
    ):
        assert found.dtype == jnp.float32 and jnp.isfinite(found).all()
