"""New rows: base ids keep their bits, new ids use their rows, and codes keep their geometry."""

import pytest
import torch

from lumoomni.model.rows import (
    Rows,
    RowsConfig,
    RowThinker,
    start_from_text,
    start_from_vectors,
)
from lumoomni.model.thinker import Thinker, ThinkerConfig
from lumoomni.train.row_loss import row_loss

V, K, D = 40, 12, 16


def made(tied: bool = True, dtype: torch.dtype = torch.float32) -> RowThinker:
    torch.manual_seed(0)
    config = ThinkerConfig(
        vocab_size=V, width=D, layers=2, heads=2, kv_heads=1, head_width=8, ffn_width=32, tied=tied
    )
    rows = Rows(RowsConfig(start=V, count=K, width=D, tied=tied))
    return RowThinker(Thinker(config).to(dtype).eval(), rows)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_text_is_embedded_and_scored_to_the_bit_as_before(tied: bool, dtype: torch.dtype) -> None:
    model = made(tied, dtype)
    ids = torch.arange(V)[None]
    assert torch.equal(model.embed(ids), model.thinker.embed(ids))
    hidden = model.thinker(model.embed(ids)).hidden
    before = model.thinker.head(hidden)
    model.rows.row_table.data += 3.0
    assert torch.equal(model.head(hidden)[..., :V], before)
    assert model.head(hidden).shape[-1] == V + K


@pytest.mark.parametrize("tied", [True, False])
def test_new_ids_use_their_rows_and_alone_get_gradients(tied: bool) -> None:
    model = made(tied)
    model.thinker.requires_grad_(False)
    ids = torch.tensor([[3, V, V + 5, 7]])
    embedded = model.embed(ids)
    assert torch.equal(embedded[0, 1], model.rows.row_table[0])
    assert torch.equal(embedded[0, 2], model.rows.row_table[5])
    model.head(model.thinker(embedded).hidden).logsumexp(-1).sum().backward()
    assert model.thinker.token_table.weight.grad is None
    touched = model.rows.row_table.grad.abs().sum(1) > 0
    assert touched[[0, 5]].all() and (tied or int(touched.sum()) == 2)
    assert tied or model.rows.row_head.grad.abs().sum(1).gt(0).all()


def test_a_slice_of_the_head_is_a_slice_of_the_logits() -> None:
    model = made()
    hidden = torch.randn(3, D)
    whole = model.head(hidden)
    part = model.head_slice(hidden, [(V + 2, V + 9), (4, 6)])
    torch.testing.assert_close(part, torch.cat([whole[:, V + 2 : V + 9], whole[:, 4:6]], -1))
    for wrong in ((V - 1, V + 1), (0, 0), (V, V + K + 1)):
        with pytest.raises(ValueError, match="one block"):
            model.weight_slice(*wrong)


def test_ids_past_the_rows_and_another_base_are_refused() -> None:
    model = made()
    with pytest.raises(ValueError, match=r"0 to 52.*40 base rows and 12"):
        model.embed(torch.tensor([[0, V + K]]))
    with pytest.raises(ValueError, match="made for a base of 41 rows"):
        RowThinker(model.thinker, Rows(RowsConfig(start=V + 1, count=K, width=D)))


def test_rows_start_at_the_mean_of_text_and_differ() -> None:
    model = made(tied=False)
    start_from_text(model.rows, model.thinker, seed=1)
    text = model.thinker.token_table.weight
    assert (model.rows.row_table - text.mean(0)).norm(dim=1).max() < 0.1 * text.norm(dim=1).mean()
    assert len(model.rows.row_table.unique(dim=0)) == K
    head = model.thinker.head_weight()
    assert (model.rows.row_head - head.mean(0)).norm(dim=1).max() < 0.1 * head.norm(dim=1).mean()


def test_rows_of_codes_lie_as_their_codebook_does_and_are_as_loud_as_words() -> None:
    model = made()
    vectors = torch.randn(8, 5, generator=torch.Generator().manual_seed(2))
    start_from_vectors(model.rows, model.thinker, 3, vectors, seed=0)
    new = model.rows.row_table.detach()[3:11]
    ratio = torch.pdist(new) / torch.pdist(vectors)
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=1e-6)
    text = model.thinker.token_table.weight.detach()
    loud = (new - text.mean(0)).norm(dim=1).mean() / (text - text.mean(0)).norm(dim=1).mean()
    assert float(loud) == pytest.approx(1.0, rel=1e-4)
    with pytest.raises(ValueError, match="8 codes from row 5 on"):
        start_from_vectors(model.rows, model.thinker, 5, vectors, seed=0)


@pytest.mark.parametrize("tied", [True, False])
def test_codes_share_what_their_digits_have_until_they_settle(tied: bool) -> None:
    model = made(tied)
    rows, digits = model.rows, torch.cartesian_prod(torch.arange(2), torch.arange(4))
    before = rows.head_rows().detach().clone()
    rows.share(3, digits)
    assert torch.equal(rows.head_rows(), before)
    optimiser = torch.optim.SGD([p for n, p in rows.named_parameters() if "shared" in n], lr=1.0)
    # One code is pulled; those that share a digit with it move too, those that share none do not.
    (rows.head_rows()[3 + 5].sum() + rows.embedding_rows()[3 + 5].sum()).backward()
    optimiser.step()
    moved = (rows.head_rows() - before).abs().sum(1).detach()
    shares = (digits == digits[5]).any(1)
    assert torch.equal(moved[3:11] > 0, shares)
    assert moved[3 + 5] > 2.5 * moved[3:11][shares & (torch.arange(8) != 5)].max()
    assert not moved[:3].any() and not moved[11:].any()
    whole, ids = rows.head_rows().detach(), torch.tensor([[3, V + 8, V + 3]])
    embedded = model.embed(ids).detach()
    rows.settle()
    assert torch.equal(rows.head_rows(), whole) and torch.equal(model.embed(ids), embedded)
    assert {name for name, _ in rows.named_parameters()} <= {"row_table", "row_head"}
    with pytest.raises(ValueError, match="do not fit"):
        rows.share(5, digits)


@pytest.mark.parametrize("tied", [True, False])
def test_codes_of_parts_alone_are_as_likely_as_their_parts(tied: bool) -> None:
    """However they were trained: a code that was never right is not thereby wrong."""
    rows = made(tied).rows
    parts = torch.cartesian_prod(torch.arange(2), torch.arange(4))
    # The own parts of codes are made of these too, as those of digits are.
    ends = [rows.row_table] if tied else [rows.row_table, rows.row_head]
    with torch.no_grad():
        for end in ends:
            assert end is not None
            end[3:11] = torch.randn(2, 1, end.shape[1]).expand(2, 4, -1).reshape(8, -1)
    rows.share(3, parts, alone=True)
    before, plain = rows.row_table.detach().clone(), rows.embedding_rows()[:3].detach()
    optimiser = torch.optim.SGD(rows.parameters(), lr=0.5)
    hidden = torch.randn(5, rows.config.width)
    for _ in range(20):
        optimiser.zero_grad()
        logits = hidden @ rows.head_rows().t()
        # Code 5 = (1, 1) never comes, but others with each of its parts do.
        wanted = torch.tensor([3 + 4, 3 + 1, 3 + 6, 0, 2])
        (torch.nn.functional.cross_entropy(logits, wanted)).backward()
        optimiser.step()
    # The whole table is no parameter meanwhile: its gradient would be as large as itself.
    assert torch.equal(rows.row_table, before)
    assert not {"row_table", "row_head"} & {name for name, _ in rows.named_parameters()}
    if tied:
        assert not torch.equal(rows.embedding_rows()[:3], plain)
    found = (hidden @ rows.head_rows()[3:11].t()).log_softmax(-1).view(-1, 2, 4)
    apart = found.logsumexp(2)[:, :, None] + found.logsumexp(1)[:, None]
    assert torch.allclose(found, apart, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_codes_of_parts_alone_are_embedded_and_scored_without_being_made(tied: bool) -> None:
    model = made(tied)
    rows, parts = model.rows, torch.cartesian_prod(torch.arange(2), torch.arange(4))
    ends = [rows.row_table] if tied else [rows.row_table, rows.row_head]
    with torch.no_grad():
        for end in ends:
            assert end is not None
            vectors = torch.randn(2, 1, end.shape[1]) + torch.randn(1, 4, end.shape[1])
            end[3:11] = vectors.reshape(8, -1)
    whole = [rows.embedding_rows().detach().clone(), rows.head_rows().detach().clone()]
    rows.share(3, parts, alone=True)
    # What is a sum of parts is taken over as it is.
    torch.testing.assert_close(rows.embedding_rows(), whole[0])
    torch.testing.assert_close(rows.head_rows(), whole[1])
    ids = torch.tensor([[2, V, V + 2, V + 3, V + 10, V + 11, V + rows.config.count - 1]])
    torch.testing.assert_close(model.embed(ids)[0, 1:], rows.embedding_rows()[ids[0, 1:] - V])
    hidden, base = torch.randn(1, 7, rows.config.width), model.thinker.head_weight().detach()
    short = row_loss(hidden, ids, base, rows.learned_head())
    torch.testing.assert_close(short.total, row_loss(hidden, ids, base, rows.head_rows()).total)
    rows.settle()
    torch.testing.assert_close(rows.head_rows(), whole[1])
    found = {name for name, _ in rows.named_parameters()}
    assert found == ({"row_table"} if tied else {"row_table", "row_head"})
    assert set(rows.state_dict()) == found


def test_parts_that_are_not_every_combination_once_are_refused() -> None:
    rows = made(True).rows
    parts = torch.cartesian_prod(torch.arange(2), torch.arange(4))
    for wrong in (parts[:-1], parts[[0, 1, 2, 3, 4, 5, 7, 7]]):
        with pytest.raises(ValueError, match="every combination"):
            rows.share(3, wrong, alone=True)
