from __future__ import annotations

import numpy as np
import pytest

from pipelines.crawl.html import fit
from pipelines.crawl.html.context import CONTEXT, context
from pipelines.crawl.html.features import FEATURES, features
from pipelines.crawl.html.model import Model, Trees, best_cut, forward, main_blocks, read_model, without_copies
from pipelines.crawl.html.scan import scan
from pipelines.errors import IntegrityError

STUMP = Trees(
    np.array([0, -3], np.int32),
    np.array([1], np.int16),
    np.array([0.5], np.float32),
    np.array([-1], np.int32),
    np.array([-2], np.int32),
    np.array([-2.0, 2.0, 1.0], np.float32),
)


def test_a_row_at_the_threshold_goes_left_and_a_tree_may_be_one_leaf():
    rows = np.array([[0, 0.5], [0, 0.50001]], np.float32)
    assert forward(STUMP, rows) == pytest.approx([1 / (1 + np.exp(1)), 1 / (1 + np.exp(-3))])


def test_the_cut_keeps_what_the_expected_f1_asks_for():
    tokens = np.array([100, 100, 100], np.float32)
    assert best_cut(np.array([[0.99, 0.98, 0.02]], np.float32), tokens).tolist() == [True, True, False]
    assert best_cut(np.array([[0.4, 0.39, 0.38]], np.float32), tokens).all()  # all doubtful: more is better than little
    assert len(best_cut(np.zeros((2, 0), np.float32), np.zeros(0, np.float32))) == 0


def test_the_cut_hears_both_models():
    tokens = np.array([100, 100, 100], np.float32)
    sure, unsure = np.array([0.99, 0.9, 0.01], np.float32), np.array([0.99, 0.05, 0.04], np.float32)
    assert best_cut(np.stack((sure, sure)), tokens).tolist() == [True, True, False]
    assert best_cut(np.stack((unsure, unsure)), tokens).tolist() == [True, False, False]
    assert best_cut(np.stack((sure, unsure)), tokens).tolist() == best_cut(np.stack((unsure, sure)), tokens).tolist()


def test_a_copy_in_another_container_goes_and_what_an_author_says_twice_stays():
    line = "<p>Nine words make this line long enough to matter.</p>"
    page = scan(
        f"<div>{line}{line}</div><section><div>{line}</div></section><p>short copy</p><p>short copy</p>".encode()
    )
    long = np.array([True, True, True, False, False])
    assert without_copies(page, np.ones(5, bool), long).tolist() == [True, True, False, True, True]
    assert without_copies(page, np.array([False, False, True, True, True]), long)[2]  # the first one kept is no copy


def test_the_shipped_model_keeps_the_story_and_leaves_the_rest():
    page = scan(
        (
            "<title>磨坊</title><div class=nav><a href=/>首页</a> <a href=/b>联系我们</a></div>"
            "<div class=content><h1>磨坊</h1>"
            + "".join(
                f"<p>第{n}段：磨盘缓缓转动，谷物变成面粉，一直以来都是这样，没有人觉得奇怪。</p>" for n in range(9)
            )
            + "</div><ul class=related><li><a href=/1>相关新闻一则在此</a><li><a href=/2>相关新闻二则在此</a></ul>"
            "<div class=footer>版权所有 京ICP备00000000号</div>"
        ).encode()
    )
    raw = page.text.tobytes()
    keep = main_blocks(page)
    kept = [raw[a:b].decode() for (a, b), k in zip(page.blocks[:, :2].tolist(), keep, strict=True) if k]
    assert [text[:3] for text in kept] == [f"第{n}段" for n in range(9)]


def test_features_and_context_have_the_named_columns_and_are_finite():
    for markup in (b"", b"x", b"<p>a<p>b", b"<table><tr><td>1<td>2</table>" * 50):
        page = scan(markup)
        own, tokens, groups = features(page)
        around = context(np.full(len(tokens), 0.5, np.float32), tokens, groups, page.blocks, page.nodes)
        assert own.shape == (len(page.blocks), len(FEATURES)) and around.shape == (len(page.blocks), len(CONTEXT))
        assert np.isfinite(own).all() and np.isfinite(around).all()


def test_a_model_for_other_features_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "column_names_hash", lambda: "other")
    path = tmp_path / "m.npz"
    fit.save(path, Model(STUMP, STUMP, np.array([0], np.int64)))
    monkeypatch.undo()
    with pytest.raises(IntegrityError, match="other features"):
        read_model(path)
