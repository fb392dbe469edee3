"""Exact search: equal to a full fp64 ranking whatever the chunk, the precision and the data."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stretchysnake.eval.protocols.nearest as module
from stretchysnake.eval.protocols.exhaustive import Exhaustive
from stretchysnake.eval.protocols.nearest import BLOCK, nearest, scores


@pytest.fixture(autouse=True, params=[0.0, 1 / 64, 1e9], ids=["plain", "as it is", "two passes"])
def share(request, monkeypatch):
    """Every test by both ways: nothing of the gallery may be left over, or all of it."""
    monkeypatch.setattr(module, "_PLAIN_SHARE", request.param)
    return request.param


def ranked(query, gallery, k, similarity):
    """The oracle: every pair in fp64, ties to the lower index."""
    if similarity == "l2":
        score = -(query[:, None].double() - gallery[None].double()).square().sum(2)
    else:
        score = scores(query, gallery, similarity=similarity)
    return score.sort(dim=1, descending=True, stable=True).indices[:, :k]


def test_cosine_ignores_length_and_l2_does_not():
    gallery = torch.tensor([[10.0, 1.0], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.2]])
    assert nearest(query, gallery).tolist() == [[0]]
    assert nearest(query, gallery, similarity="l2").tolist() == [[1]]


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("k", [1, 5, 123])
def test_chunks_change_nothing(similarity, chunk, k):
    query, gallery = torch.randn(11, 6), torch.randn(123, 6)
    found = nearest(query, gallery, k=k, similarity=similarity, chunk=chunk)
    assert torch.equal(found, ranked(query, gallery, k, similarity))


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 10_000),
    num_gallery=st.integers(1, 150),
    width=st.integers(1, 40),
    k=st.integers(1, 12),
    spread=st.sampled_from([1.0, 1e-3, 1e-6, 0.0]),
    similarity=st.sampled_from(["cosine", "l2"]),
    chunk=st.sampled_from([4, 16, 1024]),
)
def test_nearly_equal_vectors_are_ranked_as_in_fp64(
    seed, num_gallery, width, k, spread, similarity, chunk
):
    """Collapsed features differ by less than fp32 products resolve; duplicates tie exactly."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, width, generator=generator)
    gallery = centre + spread * torch.randn(num_gallery, width, generator=generator)
    gallery = gallery[torch.randint(num_gallery, (num_gallery,), generator=generator)]
    query = centre + spread * torch.randn(5, width, generator=generator)
    k = min(k, num_gallery)
    found = nearest(query, gallery, k=k, similarity=similarity, chunk=chunk)
    if similarity == "l2":
        assert torch.equal(found, ranked(query, gallery, k, "l2"))
        return
    # fp64 cosine itself is only known to about 1e-16 · width: equal scores, not equal indices
    exact = scores(query, gallery)
    wanted = exact.sort(dim=1, descending=True).values[:, :k]
    torch.testing.assert_close(exact.gather(1, found), wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_the_first_pass_changes_nothing(precision):
    before = torch.get_float32_matmul_precision()
    query, gallery = torch.randn(40, 64), torch.randn(500, 64)
    try:
        torch.set_float32_matmul_precision(precision)
        for similarity in ("cosine", "l2"):
            found = nearest(query, gallery, k=7, similarity=similarity)
            assert torch.equal(found, ranked(query, gallery, 7, similarity))
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_first_pass_of_bf16_needs_the_wider_bound(share, monkeypatch):
    """The proof in small: scores rounded to bf16 give the fp64 ranking with the bound of "medium"."""
    if share == 0:
        pytest.skip("no first pass")
    monkeypatch.setattr(module, "_PLAIN_SHARE", 1e9)
    query, gallery = torch.randn(64, 32), torch.randn(2000, 32)
    gallery[1::2] = gallery[::2] + 1e-3 * torch.randn(
        1000, 32
    )  # neighbours that bf16 cannot tell apart
    wanted = ranked(query, gallery, 3, "cosine")
    whole = module._block_maxima

    def rounded(query, gallery, *rest):
        low = (query.bfloat16().float(), gallery.bfloat16().float())
        return whole(*low, *rest).bfloat16().float()

    monkeypatch.setattr(module, "_block_maxima", rounded)
    assert not torch.equal(nearest(query, gallery, k=3), wanted)  # the narrow bound is too narrow
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert torch.equal(nearest(query, gallery, k=3), wanted)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
@pytest.mark.parametrize("k", [1, 3])
def test_few_rows_scored_at_a_time_change_nothing(monkeypatch, similarity, k):
    """Collapsed features leave every block to be scored again; that is done in parts."""
    centre = torch.randn(1, 6)
    query, gallery = centre + 1e-6 * torch.randn(9, 6), centre + 1e-6 * torch.randn(200, 6)
    found = nearest(query, gallery, k=k, similarity=similarity)
    monkeypatch.setattr(module, "_RESCORED", 700)
    assert torch.equal(nearest(query, gallery, k=k, similarity=similarity), found)


@pytest.mark.parametrize("kind", ["one direction", "one point", "a giant"])
@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_no_pair_is_scored_alone_where_the_bound_admits_everything(
    share, kind, similarity, monkeypatch
):
    """The cliff: 500 × 20,000 such features took a minute, the plain product a third of a second."""
    if share != 1 / 64:
        pytest.skip("speaks of the share as it is")
    rescored = []
    whole = module._row_pairs
    monkeypatch.setattr(
        module, "_row_pairs", lambda *a: rescored.append(len(a[4]) * BLOCK) or whole(*a)
    )
    generator = torch.Generator().manual_seed(0)
    spread = {"one direction": 1e-2, "one point": 0.0, "a giant": 1.0}[kind]
    centre = torch.randn(1, 24, generator=generator) if kind != "a giant" else torch.zeros(1, 24)
    query = centre + spread * torch.randn(6, 24, generator=generator)
    gallery = centre + spread * torch.randn(8000, 24, generator=generator)
    gallery[0] *= 300 if kind == "a giant" else 1
    found = nearest(query, gallery, k=2, similarity=similarity)
    assert sum(rescored) <= len(query) * len(gallery) / 64
    if kind == "one point":
        assert found.tolist() == [[0, 1]] * 6
    else:
        assert torch.equal(found, ranked(query, gallery, 2, similarity))


def test_some_queries_crowded_and_others_not(monkeypatch):
    """One call, both ways: a clump that fp32 cannot tell apart beside rows that it can, with ids to skip."""
    monkeypatch.setattr(module, "_PLAIN_SHARE", 1 / 64)
    asked = []
    plain = Exhaustive.nearest
    monkeypatch.setattr(
        Exhaustive, "nearest", lambda self, q, **k: asked.append(len(q)) or plain(self, q, **k)
    )
    generator = torch.Generator().manual_seed(1)
    clump = torch.randn(1, 16, generator=generator)
    gallery = torch.randn(6000, 16, generator=generator)
    gallery[:3000] = clump + 1e-6 * torch.randn(3000, 16, generator=generator)
    query = torch.cat([clump.repeat(4, 1), torch.randn(20, 16, generator=generator)])
    ids = torch.arange(24), torch.arange(6000) % 40
    for similarity in ("cosine", "l2"):
        asked.clear()
        found = nearest(query, gallery, k=3, similarity=similarity, chunk=7, exclude=ids)
        assert 4 <= sum(asked) < 24
        score = scores(query - (clump if similarity == "l2" else 0), gallery - (clump if similarity == "l2" else 0),
                       similarity=similarity)  # fmt: skip
        score = score.masked_fill(ids[0][:, None] == ids[1], -torch.inf)
        wanted = score.sort(dim=1, descending=True, stable=True).values[:, :3]
        torch.testing.assert_close(score.gather(1, found), wanted, rtol=0, atol=1e-13)


def test_ties_go_to_the_lower_index():
    gallery = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    assert nearest(torch.tensor([[1.0, 0.0]]), gallery, k=3, chunk=2).tolist() == [[1, 2, 3]]
    many = torch.ones(5 * BLOCK + 3, 4)
    assert nearest(torch.ones(2, 4), many, k=4).tolist() == [[0, 1, 2, 3]] * 2


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_equal_rows_tie_wherever_they_stand_in_the_gallery(similarity):
    """A product computes the edges of a matrix in another order than its middle: equal rows must be asked once."""
    torch.manual_seed(0)
    gallery = torch.randn(5, 384)[torch.arange(517) % 5]
    search = Exhaustive(gallery, similarity)
    found = search.nearest(torch.randn(33, 384), k=4)
    assert len(search.rows) == 5
    assert (found == found[:, :1] % 5 + 5 * torch.arange(4)).all()


@pytest.mark.parametrize("chunk", [1, 9, 1024])
def test_excluded_pairs_are_skipped(chunk):
    query, gallery = torch.randn(30, 5), torch.randn(70, 5)
    ids = torch.arange(30) % 7 - 1, torch.arange(70) % 6
    found = nearest(query, gallery, k=6, chunk=chunk, exclude=ids)
    score = scores(query, gallery).masked_fill(ids[0][:, None] == ids[1], -torch.inf)
    assert torch.equal(found, score.sort(dim=1, descending=True, stable=True).indices[:, :6])


def test_no_query_gives_no_row():
    assert nearest(torch.empty(0, 3), torch.ones(4, 3), k=2).shape == (0, 2)


def test_wrong_arguments_are_named():
    vectors = torch.ones(2, 2)
    with pytest.raises(ValueError, match=r"similarity \('dot'\) must be one of: cosine, l2"):
        nearest(vectors, vectors, similarity="dot")
    with pytest.raises(ValueError, match=r"k \(3\) must be between 1 and the gallery's size \(2\)"):
        nearest(vectors, vectors, k=3)
    with pytest.raises(ValueError, match=r"\(2, 2\) and gallery \(2, 3\) must be .* of one width"):
        nearest(vectors, torch.ones(2, 3))
    with pytest.raises(ValueError, match="gallery row 1 holds non-finite values"):
        nearest(vectors, torch.tensor([[1.0, 1.0], [1.0, float("inf")]]))
    own = torch.tensor([0, 0])
    with pytest.raises(ValueError, match=r"query 0 has 0 of 2 outside its own group"):
        nearest(vectors, vectors, exclude=(own, own))


@pytest.mark.parametrize("seed", range(20))
def test_l2_of_rows_of_all_norms_is_the_fp64_ranking(seed):
    """Blocks hold rows of nearly one norm: many norms, the last block not full, whole numbers that tie."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(low, high):
        return int(torch.randint(low, high, (1,), generator=generator))

    num_queries, num_rows, width, chunk = drawn(1, 40), drawn(1, 400), drawn(1, 9), drawn(1, 30)
    query = 3 * torch.randn(num_queries, width, generator=generator)
    gallery = 10 * torch.rand(num_rows, 1, generator=generator)
    gallery = gallery * torch.randn(num_rows, width, generator=generator)
    if seed % 2:
        query, gallery = query.round(), gallery.round()
    k = min(num_rows, 5)
    found = nearest(query, gallery, k=k, similarity="l2", chunk=chunk)
    assert torch.equal(found, ranked(query, gallery, k, "l2"))
