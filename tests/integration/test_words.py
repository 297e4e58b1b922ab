"""Words of any text and any query: none is an error, and what is there is found by them."""

import itertools
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Sql = Callable[..., list[Any]]

ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
# What the parser of queries, that of words, and tsquery itself care for.
PIECES = [
    *("-", '"', " ", "\n", "a", "the", "-x", "'", "\\", "&", "|", "!", "(", ")", ":*", "<->"),
    *("or", "and", "猫", "東京都", "ไทย", "é", "e\u0301", "3", "|---", "\u3000"),
]
PUNCTUATED = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
TEXTS = ANYTHING | PUNCTUATED
UNSPACED = {
    "Chinese": ("我们在北京的胡同里看到一只黑猫", "黑猫", "白猫"),
    "Japanese": ("東京タワーの夜景とラーメン屋", "ラーメン", "うどん"),
    "Thai": ("แมวดำนอนอยู่บนโซฟาสีแดง", "โซฟา", "หมา"),
    "Lao": ("ແມວດຳນອນຢູ່ເທິງໂຊຟາ", "ໂຊຟາ", "ໝາ"),
    "Khmer": ("ឆ្មាខ្មៅដេកលើសាឡុងក្រហម", "សាឡុង", "ឆ្កែ"),
    "Burmese": ("ကြောင်နက်ဆိုဖာပေါ်အိပ်", "ဆိုဖာ", "ခွေး"),
}


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture(scope="module")
def words(url: str) -> Iterator[Sql]:
    connection = psycopg2.connect(url)
    connection.autocommit = True

    def run(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


def wanted(words: Sql, query: str) -> str | None:
    return str(found) if (found := words(
        "SELECT ranking::text FROM pgclip._words_wanted(%s)", query)[0][0]) else None  # fmt: skip


def finds(words: Sql, query: str, text: str, metadata: str = "{}") -> bool:
    return bool(words(
        """SELECT pgclip._words('english', ARRAY['title'], %s, convert_to(%s, 'UTF8')) @@ ranking
           FROM pgclip._words_wanted(%s)""", metadata, text, query)[0][0])  # fmt: skip


def all_of(words: Sql, query: str, text: str) -> bool:
    """Whether a text has all words of a query."""
    return bool(words(
        """SELECT pgclip._words('english', '{}', '{}', convert_to(%s, 'UTF8')) @@ narrowest[1]
           FROM pgclip._words_wanted(%s)""", text, query)[0][0])  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=TEXTS, text=TEXTS)
def test_no_text_is_an_error(words: Sql, query: str, text: str) -> None:
    finds(words, query, text, '{"title": ["a", {"b": 1}, "猫"]}')
    assert words("SELECT pgclip._is_blank(%s)", text)[0][0] in (True, False)


@settings(max_examples=300, deadline=None)
@given(text=ANYTHING.filter(lambda text: not set('-"') & set(unicodedata.normalize("NFKC", text))))
def test_a_text_is_found_by_itself_however_it_is_spelled(words: Sql, text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        query = unicodedata.normalize(form, text)  # type: ignore[arg-type]
        if wanted(words, query):
            assert all_of(words, query, text)


@pytest.mark.parametrize("language", UNSPACED)
def test_words_without_spaces_between(words: Sql, language: str) -> None:
    text, inside, elsewhere = UNSPACED[language]
    assert all_of(words, inside, text)
    assert all_of(words, f'"{inside}"', text)
    assert all_of(words, inside[0], text)
    assert not all_of(words, elsewhere, text)
    assert finds(words, inside, "", f'{{"title": "{text}"}}')
    assert not finds(words, f"{text[:2]} -{inside}", text)


def test_a_single_character_finds_it_wherever_it_stands(words: Sql) -> None:
    for text in ("猫", "猫がいる", "黒猫", "大きい猫です", "猫 dog", "a猫b"):
        assert all_of(words, "猫", text)
    assert not all_of(words, "猫", "犬がいる")


@pytest.mark.parametrize(
    ("query", "ranking"),
    [
        ("-" * 40 + " invoice", "'invoic'"),
        ("---\ninvoice", "'invoic'"),
        ("| a | invoice |\n|---|---|", "'invoic'"),
        ("Nike Air - black", "'black' | 'nike' | 'air'"),
        ("Nike Air -black", "'nike' & 'air' & !'black'"),
        ("red-black", "'red-black' | 'black' | 'red'"),
        ("shoes\t-black\n-red", "'shoe' & !( 'black' | 'red' )"),
        ('shoes -"very black"', "'shoe' & !( 'black' )"),
        ('"blue jeans" red', "'red' & 'blue' <-> 'jean'"),
        ('27" monitor', "'monitor' | '27'"),
        ('an unclosed "quote', "'unclos' | 'quot'"),
        ("-black", None),
        ('-black -"navy blue"', None),
        ("-", None),
        ('""', None),
        ("the of", None),
        ("black or white", "'black' | 'white'"),
    ],
)
def test_what_a_query_means(words: Sql, query: str, ranking: str | None) -> None:
    found = wanted(words, query)
    if ranking is None:
        assert found is None
    else:
        assert found is not None
        normal = "SELECT %s::tsquery::text, %s::tsquery::text"
        ours, theirs = words(normal, found, ranking.replace("( 'black' )", "'black'"))[0]
        assert ours == theirs or set(ours.split(" | ")) == set(theirs.split(" | "))


def test_of_many_words_those_that_tell_most_count(words: Sql) -> None:
    words("INSERT INTO pgclip.collection (name) VALUES ('c') ON CONFLICT DO NOTHING")
    words(
        """WITH i AS (INSERT INTO pgclip.item (collection_id, key, kind, source)
                      SELECT 1, n::text, 'image', 'file:///' || n FROM generate_series(1, 500) n
                      RETURNING id)
           INSERT INTO pgclip.item_text
           SELECT id, to_tsvector('english', 'common1 common2 common3 common4' ||
                  CASE WHEN id = 7 THEN ' rare' ELSE '' END) FROM i"""
    )
    words("ANALYZE pgclip.item_text")
    query = " ".join(f"common{n}" for n in range(1, 5)) + " rare " + " ".join(
        f"nowhere{n}" for n in range(15))  # fmt: skip
    found = wanted(words, query) or ""
    assert found.count("|") == 15
    assert "rare" in found
    assert "common" not in found


def test_texts_beyond_what_postgres_takes(words: Sql) -> None:
    """A megabyte of words in all, and a word of 2 kB, are the limits of Postgres."""
    characters = [chr(c) for c in range(0x4E00, 0x9FFF)]
    random = np.random.default_rng(0)
    text = "".join(random.choice(characters, 87_000))
    many = " ".join(f"{n:x}" for n in range(40_000))[:262_144]
    hyphened = " ".join(f"a{n:x}-b{n:x}" for n in range(20_000))[:262_144]
    for each in (text, many, "wide " + "x" * 262_139, "ก" * 87_000, hyphened):
        title = each[-60_000 if each.isascii() else -20_000 :].replace("a", "c")
        assert finds(words, each[:20].split()[0], each, f'{{"title": "{title}"}}')


def test_a_text_whose_characters_stand_for_many(words: Sql) -> None:
    """U+FDFA is eighteen characters to those who search for words: more than a megabyte."""
    triples = [
        "".join(three) for three in itertools.product("abcdefghijklmnopqrstuvwxyz", repeat=3)
    ]
    text = "".join(f"-{three}\ufdfa" for three in triples)[:85_000]
    assert finds(words, triples[0], text + " aaa")
    words("SELECT pgclip.submit_text(%s, key => 'many')", text)
    assert words("SELECT max(length(words)) > 1000 FROM pgclip.item_text") == [(True,)]
    words("SELECT pgclip.delete('many')")


def test_many_marks_on_one_letter_take_no_time_that_nothing_ends(words: Sql) -> None:
    """To sort them takes time quadratic in their number: of so many, a hundred seconds."""
    words("BEGIN; SET LOCAL statement_timeout = '20s'")
    text = "a" + "\u0301\u0316" * 65_000
    words("SELECT pgclip._words('english', '{}', '{}', convert_to(%s, 'UTF8'))", text)
    words("ROLLBACK")


def test_latin_words_after_many_others_keep_their_order(words: Sql) -> None:
    text = "ก" * 20_000 + " a red cat"
    assert all_of(words, '"red cat"', text)
    assert not all_of(words, '"cat red"', text)


def test_unicode_that_shows_nothing_is_blank(words: Sql) -> None:
    rows = words(
        """SELECT n, pgclip._is_blank(chr(n)) FROM generate_series(1, 1114111) n
           WHERE n NOT BETWEEN 55296 AND 57343"""
    )
    blank = {chr(n) for n, is_blank in rows if is_blank}
    assert {"\u3000", "\xa0", "\u200b", "\ufeff", "\t", "\u2060", "\u00ad", "\u2800"} <= blank
    fillers = {"\u115f", "\u1160", "\u3164", "\uffa0", "\u2800"}
    for n, is_blank in rows:
        character, category = chr(n), unicodedata.category(chr(n))
        if character.isspace() or category in ("Cc", "Zs", "Zl", "Zp"):
            assert is_blank, hex(n)
        elif category[0] in "LNPS" and character not in fillers:
            assert not is_blank, hex(n)


@pytest.mark.parametrize("text", ["\u3000", "\xa0\u200b", "\ufeff", " \n\t", "\u200d\ufe0f", ""])
def test_blank_texts_and_queries_are_refused(words: Sql, text: str) -> None:
    with pytest.raises(psycopg2.Error, match=r"blank|is empty") as refused:
        words("SELECT pgclip.submit_text(%s)", text)
    assert refused.value.pgcode == "PC001"
    with pytest.raises(psycopg2.Error, match="the query is blank"):
        words("SELECT pgclip._query_data(%s, NULL)", text)


def test_a_query_has_8_kib_at_most(words: Sql) -> None:
    words("SELECT pgclip._query_data(%s, NULL)", "é" * 4096)
    with pytest.raises(psycopg2.Error, match="8 KiB"):
        words("SELECT pgclip._query_data(%s, NULL)", "é" * 4097)


def test_a_configuration_wins_over_what_is_indexed_anew(words: Sql, url: str) -> None:
    words("DELETE FROM pgclip.item")
    words("SELECT pgclip.submit_text('running dogs', key => 'k')")
    words("INSERT INTO pgclip.words_anew VALUES (0)")
    with psycopg2.connect(url) as other:
        other.cursor().execute("SELECT pgclip.configure_text_search('simple')")
        assert words("SELECT pgclip.index_words_anew(7)") == [(False,)]
        other.commit()
    other.close()
    assert words("SELECT words @@ 'running' FROM pgclip.item_text") == [(True,)]
    assert words("SELECT count(*) FROM pgclip.words_anew") == [(0,)]
    words("SELECT pgclip.configure_text_search()")


def test_words_are_indexed_anew_page_by_page(words: Sql, url: str) -> None:
    """As after an upgrade, while somebody holds an item."""
    words("DELETE FROM pgclip.item")
    for n in range(30):
        words("SELECT pgclip.submit_text(%s, key => %s)", f"東京都の猫 {n}", f"k{n}")
    words("UPDATE pgclip.item_text SET words = ''")
    words("INSERT INTO pgclip.words_anew VALUES (0)")
    done = "SELECT count(*) FROM pgclip.item_text WHERE words @@ '東京'::tsquery"
    with psycopg2.connect(url) as holder:
        holder.cursor().execute("UPDATE pgclip.item SET metadata = '{\"a\": 1}' WHERE key = 'k9'")
        assert words("SELECT pgclip.index_words_anew(7)") == [(True,)]
        assert words("SELECT pgclip.index_words_anew(7)") == [(False,)]  # not now
        assert 9 <= words(done)[0][0] < 30
    holder.close()
    while words("SELECT pgclip.index_words_anew(7)") == [(True,)]:
        pass
    assert words(done) == [(30,)]
    assert words("SELECT count(*) FROM pgclip.words_anew") == [(0,)]
