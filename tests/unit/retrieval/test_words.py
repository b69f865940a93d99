"""Words of many languages, filters, and the order that is made of several."""

from __future__ import annotations

import math

import pytest

from shared_libs.atomic import MisuseError
from shared_libs.retrieval.english import is_english
from shared_libs.retrieval.filters import MAX_VALUES, checked_metadata, read_filter
from shared_libs.retrieval.fusion import behind_the_head, stretched, weights_for
from shared_libs.retrieval.types import Found, Space
from shared_libs.retrieval.words import Asked, latin_words, terms


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The days of annual LEAVE are 25", ["the", "day", "of", "annual", "leav", "are", "25"]),
        ("Annual LEAVE, 25 days", ["annual", "leave", "leav", "25", "days", "day"]),  # names and tables: by both
        ("Quais são os dados das células?", ["quais", "sao", "são", "os", "dados", "das", "celulas", "células"]),
        ("年假制度", ["年假", "假制", "制度", "年", "假", "制", "度"]),  # single ones in texts alone
        ("请假3天", ["请假", "请", "假", "3", "天"]),
        ("nghỉ phép Đà Nẵng", ["nghi", "nghỉ", "phep", "phép", "da", "đà", "nang", "nẵng"]),
        ("férias não", ["ferias", "férias", "nao", "não"]),
        ("snake_case __init__", ["snake", "case", "init"]),
        ("ｆｕｌｌ width ﬁnd", ["full", "width", "find"]),
        ("ひらがな", ["ひら", "らが", "がな"]),
        ("用 STYLE 函数", ["用", "style", "函数", "函", "数"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("மொழி", ["மொழி"]),
        ("שָׁלוֹם", ["שלום", "שָׁלוֹם"]),
        ("كِتاب", ["كتاب", "كِتاب"]),
        ("ខ្មែរ", ["ខ្", "្ម", "មែ", "ែរ"]),
        ("연차휴가", ["연차", "차휴", "휴가", "연", "차", "휴", "가"]),
        ("ERR-4711, RTX4090", ["err", "4711", "err4711", "rtx4090", "rtx", "4090"]),
        ("U.S.A. e‑mail", ["u", "s", "a", "usa", "e", "mail", "email"]),
        ("os.path.join node.js", ["os", "path", "join", "node", "js", "nodejs"]),
        ("1.2.3 2026-03-14", ["1", "2", "3", "2026", "03", "14", "20260314"]),
        ("Müller, Smørrebrød", ["muller", "müller", "mueller", "smorrebrod", "smørrebrød", "smoerrebroed"]),
        ("الإجازة بالكـتاب", ["الاجازه", "الإجازة", "اجازه", "بالكتاب", "بالكـتاب", "كتاب"]),
        ("הכלב", ["הכלב", "כלב"]),
        ("go 🚀🇩🇪", ["go", "u1f680", "u1f1e9", "u1f1ea"]),
        ("", []),
        ('" OR 1=1; --', ["or", "1", "1"]),
    ],
)
def test_a_text_becomes_terms(text, found):
    assert terms(text) == found


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"year": 2024}, True),
        ({"year": 2024.0}, True),
        ({"year": "2024"}, False),
        ({"year": [2023, 2024]}, True),
        ({"year": []}, False),
        ({"year": {"from": 2020}}, True),
        ({"year": {"from": 2025, "to": 2030}}, False),
        ({"year": {"to": 2024}}, True),
        ({"year": {"not": 2023}}, True),
        ({"year": {"not": {"from": 2020}}}, False),
        ({"draft": True}, True),
        ({"draft": 1}, False),
        ({"lang": "pt", "year": 2024}, True),
        ({"lang": "pt", "year": 1}, False),
        ({"absent": {"not": 1}}, False),
        ({"lang": {"from": "a", "to": "q"}}, True),
        ({"lang": {"from": 1}}, False),
    ],
)
def test_a_filter_holds_or_does_not(where, fits):
    metadata = {"year": 2024, "draft": True, "lang": "pt"}
    assert all(condition.holds(metadata) for condition in read_filter(where)) is fits


@pytest.mark.promise("retrieval-inert")
@pytest.mark.parametrize(
    "where",
    [
        {"a'; DROP TABLE chunks; --": 1},
        {"a.b": 1},
        {"": 1},
        {"x" * 65: 1},
        {1: 1},
        {"a": None},
        {"a": {"$ne": 1}},
        {"a": {"not": {"not": 1}}},
        {"a": {"from": None}},
        {"a": {"from": 1, "to": "b"}},
        {"a": [[1]]},
        {"a": "a\0b"},
        {"a": ["\ud800"]},
        {"a": {"from": "\0"}},
        {"a": {"to": math.inf}},
        {"a": math.nan},
        {"a": 2**63},
        {"a": list(range(MAX_VALUES + 1))},
        ["a"],
        "a = 1",
    ],
)
def test_what_is_no_filter_is_refused(where):
    with pytest.raises(MisuseError):
        read_filter(where)


def test_metadata_is_checked():
    assert checked_metadata({"a": 1}) == {"a": 1}
    for wrong in ({"a": [1]}, {"a b": 1}, {"a": None}, {"a": "\0"}, {"a": math.nan}, {"a": -(2**64)}):
        with pytest.raises(MisuseError):
            checked_metadata(wrong)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "a\nb"])
def test_a_name_is_checked(name):
    with pytest.raises(MisuseError):
        Space(tenant=name, collection="c")
    with pytest.raises(MisuseError):
        Space(tenant="t", collection=name)


def test_branches_are_weighed_and_a_missing_one_drops_out():
    dense = [Found("a", 0.9), Found("b", 0.5), Found("c", 0.1)]
    lexical = [Found("c", 20.0), Found("b", 10.0)]
    assert [row.id for row in stretched({"dense": dense, "lexical": lexical})] == ["a", "b", "c"]
    assert [row.id for row in stretched({"dense": dense, "lexical": []})] == ["a", "b", "c"]
    assert stretched({"dense": [], "lexical": []}) == []
    assert [row.id for row in stretched({"dense": [Found("b", 1), Found("a", 1)]})] == ["a", "b"]
    assert [row.id for row in stretched({"dense": [Found("x", 0.0), Found("y", 0.0)], "lexical": lexical})] == [
        "c",
        "b",
    ]


def test_the_second_of_two_hits_by_words_is_worth_what_it_shares():
    lexical, graph = [Found("a", 9.0), Found("b", 8.0)], [Found("g", 4.0), Found("h", 1.0)]
    scores = {row.id: row.score for row in stretched({"lexical": lexical, "graph": graph})}
    assert scores == {"a": pytest.approx(0.35), "b": pytest.approx(0.35 * 8 / 9), "g": 0.3, "h": pytest.approx(0.075)}
    assert stretched({"lexical": [Found("a", 1.0), Found("b", -1.0)]})[-1] == Found("b", 0.0)


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(
    ("question", "dense"),
    [
        ("How do I wrap text around a picture?", 0.65),
        ("Where is the café?", 0.65),
        ("Was it Gödel, in his first paper on undecidable propositions of arithmetic, who did?", 0.65),
        ("cho chữ chạy quanh hình ảnh", 0.15),
        ("让文字绕着图片排列", 0.15),
        ("Como faço para não mudar?", 0.15),
        ("quero mostrar algumas linhas no topo da coluna", 0.15),
        ("Где находится настройка?", 0.15),
        ("", 0.65),
        ("123", 0.65),
    ],
)
def test_a_model_that_knows_english_first_has_less_to_say_in_other_languages(question, dense):
    assert weights_for(question, english_first=True)["dense"] == dense
    assert weights_for(question, english_first=False)["dense"] == 0.65


@pytest.mark.promise("retrieval-languages")
@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("Why does my list change while I iterate over it?", True),
        ("What did Gödel and Erdős say about the café?", True),
        ("Como faço para o programa parar de mudar sozinho o que eu digito?", False),
        ("quero setas no topo de cada coluna para mostrar algumas linhas", False),
        ("¿Cómo puedo proteger las celdas?", False),
        ("Comment protéger mes cellules avec un mot de passe ?", False),
        ("Wie kann ich Zellen mit einem Kennwort schützen?", False),
        ("Come si proteggono le celle con una password?", False),
        ("Hoe kan ik cellen met een wachtwoord beveiligen?", False),
        ("Hur skyddar jag celler med ett lösenord?", False),
        ("Jak chronić komórki hasłem?", False),
        ("Bagaimana cara melindungi sel dengan kata sandi?", False),
        ("lam sao de chuong trinh khong tu sua nhung gi toi go nua?", False),
        ("in bảng tính sao cho vừa đúng số trang mong muốn", False),
        ("用 STYLE 函数让单元格根据数值变色", None),
        ("KUBERNETES_SERVICE_HOST", None),
        ("", None),
    ],
)
def test_a_text_tells_whether_it_is_english(text, english):
    assert is_english(latin_words(text)) is english


@pytest.mark.promise("retrieval-languages")
def test_of_a_long_question_the_rarest_terms_are_looked_for_while_they_cost_little():
    asked = Asked(" ".join(f"t{at}t" for at in range(1, 41)))
    assert asked.rarest({f"t{at}t": at for at in range(1, 41)}) == [f"t{at}t" for at in range(1, 33)]
    assert asked.rarest(dict.fromkeys(asked.terms, 1_000)) == [f"t{at}t" for at in range(1, 9)]
    assert asked.rarest({"t1t": 9_999, "t2t": 1, "t3t": 0}) == ["t2t", "t1t"]
    assert Asked("?!").rarest({}) == []


@pytest.mark.promise("retrieval-languages")
def test_a_word_of_another_language_is_looked_for_by_an_english_stem_only_where_nobody_wrote_it():
    asked = Asked("Como configuro as Databases?")
    assert asked.rarest({"databases": 3, "databas": 9}) == ["databases"]
    assert asked.rarest({"databas": 9}) == ["databas"]
    assert Asked("How do I configure the databases?").rarest({"databases": 3, "databas": 9}) == ["databases", "databas"]


def test_what_a_graph_adds_displaces_none_of_the_best():
    order = [Found(name, 1 - at / 10) for at, name in enumerate("abcdefgh")]
    anew = [Found(name, 2 - at / 10) for at, name in enumerate("hxafbecdg")]
    merged = behind_the_head(order, anew)
    assert [row.id for row in merged] == ["a", "b", "c", "d", "e", "h", "x", "f", "g"]
    scores = [row.score for row in merged]
    assert scores == sorted(scores, reverse=True)
    assert [row.id for row in behind_the_head([], [Found("x", 1.0)])] == ["x"]
