"""Language by a model that lies in the repository and is checked before use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import SetupError
from pipelines.language import identify as module
from pipelines.language.identify import MODEL_NAME, MODEL_SHA256, UNKNOWN, identify, identify_all, open_identifier

SAMPLES = {
    "en": "The stones turn slowly and the grain becomes flour, as it always has in this valley.",
    "zh": "磨盘缓缓转动，谷物变成面粉，这样的门店还有几家。",
    "de": "Die Steine drehen sich langsam, und aus dem Korn wird Mehl, wie es hier immer war.",
    "ja": "石臼はゆっくりと回り、穀物は粉になる。この谷では昔からそうだった。",
    "ru": "Жернова медленно вращаются, и зерно становится мукой, как всегда было в этой долине.",
}


@pytest.mark.parametrize("language", SAMPLES)
def test_a_sentence_gets_its_language(language):
    found, score = identify(SAMPLES[language])
    assert found == language
    assert score > 0.7 and score == round(score, 4)


def test_a_chinese_sentence_repeated_without_spaces_is_still_chinese():
    for times in (3, 9, 40):
        assert identify(SAMPLES["zh"] * times)[0] == "zh"


@pytest.mark.parametrize("text", [None, "", " \n\t", "123 456 -- !!", "\u3000。"])
def test_a_text_without_letters_has_no_language(text):
    assert identify(text) == (UNKNOWN, 0.0)


def test_traditional_and_simplified_are_one_language():
    assert identify("磨盤緩緩轉動，穀物變成麵粉，這樣的門店還有幾家。")[0] == "zh"


@given(st.lists(st.one_of(st.none(), st.text(max_size=60)), max_size=6))
@settings(deadline=None, max_examples=60)
def test_a_text_is_judged_alone_whatever_its_neighbours(texts):
    found = identify_all(texts)
    assert found == [identify(text) for text in texts]
    assert all(0.0 <= score <= 1.0 for _, score in found)


def test_only_the_head_is_looked_at():
    head = SAMPLES["en"] * 40
    assert identify(head) == identify(head + SAMPLES["zh"] * 500)


def test_the_model_is_refused_when_its_bytes_are_not_the_known_ones(monkeypatch):
    monkeypatch.setattr(module, "MODEL_SHA256", "0" * 64)
    with pytest.raises(module.IntegrityError, match=MODEL_SHA256[:16]) as caught:
        module._model.__wrapped__()
    assert "Restore" in caught.value.mend


def test_another_model_file_is_opened_by_path_and_checked(tmp_path):
    stored = module.files("pipelines.language").joinpath("lid.176.ftz").read_bytes()
    path = tmp_path / "other.ftz"
    path.write_bytes(stored)
    found = open_identifier(str(path), MODEL_SHA256)
    assert (found.name, found.sha256) == ("other.ftz", MODEL_SHA256)
    assert found.identify(SAMPLES["de"]) == identify(SAMPLES["de"])
    with pytest.raises(module.IntegrityError, match="configuration"):
        open_identifier(str(path), "0" * 64)
    with pytest.raises(SetupError, match="cannot be read"):
        open_identifier(str(tmp_path / "absent.bin"))
    (tmp_path / "text.bin").write_bytes(b"no model")
    with pytest.raises(SetupError, match="no fastText model"):
        open_identifier(str(tmp_path / "text.bin"))


def test_the_shipped_model_names_itself():
    assert (open_identifier().name, open_identifier().sha256) == (MODEL_NAME, MODEL_SHA256)


def test_shares_are_the_likeliest_languages_in_order():
    shares = open_identifier().shares(SAMPLES["ja"] + SAMPLES["en"], 5)
    assert len(shares) == 5 and shares == sorted(shares, key=lambda pair: -pair[1])
    assert open_identifier().shares("12 !", 5) == []


def test_the_bare_model_is_there_to_compare_with():
    assert open_identifier().bare(SAMPLES["ru"])[0] == "ru"


@pytest.mark.parametrize(
    ("label", "code"),
    [("__label__zh", "zh"), ("__label__cmn_Hani", "zh"), ("__label__eng_Latn", "en"), ("__label__yue_Hant", "yue"),
     ("__label__wuu", "zh"), ("__label__zzz", "zzz")],
)  # fmt: skip
def test_labels_of_other_models_become_the_same_codes(label, code):
    assert module._code(label) == code
