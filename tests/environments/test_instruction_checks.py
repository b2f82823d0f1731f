"""Each instruction that IFEval does not have: an answer that follows it and one that nearly does."""

from __future__ import annotations

import random
import string
import time
from typing import Any

import pytest
from answers import near_miss
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kascade.environments import get_environment
from kascade.environments.instructions import INSTRUCTIONS
from kascade.environments.instructions.lexicon import NORTHERN_CAPITALS, PERSON_NAMES
from kascade.environments.instructions.text import language, sentences

PROMPT = {"prompt_to_repeat": "Write a poem about tea."}
QUESTIONS = "\n".join(
    f"Question {n}: What {'really ' * n}is it?\n" + "\n".join(f"{letter}) option" for letter in "ABCDE")
    for n in range(1, 5)
)
ALPHABET_STORY = " ".join(f"{letter}nd so it went." for letter in string.ascii_uppercase)
COUNTRIES = ["Zimbabwe", *(f"Yland {99 - n}" for n in range(52))]
CITY = "ID,Country,City,Year,Count\n" + "1,Norway,Oslo,2000,5\n" * 7
BRAND = "ProductID,Category,Brand,Price,Stock\n" + "1,a,FIELD,2,3\n" * 14
TABS_ROWS = ("StudentID Subject Grade Semester Score", *(["1 a b c 2"] * 3))
TABS = "\n".join("\t".join(f'"{field}"' for field in row.split()) for row in TABS_ROWS)
FIVE = {f"keyword{n}": word for n, word in enumerate(("oak", "elm", "ash", "fir", "yew"), 1)}
FIVE_TEXT = "oak " + "elm " * 2 + "ash " * 3 + "fir " * 5 + "yew " * 7

CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # id, arguments, an answer that follows, one that does not
    ("letters:letter_counting", {"N": 5, "relation": "at least"}, "abc de!", "abcd 12345"),
    ("letters:letter_counting2", {"letter": "z", "let_frequency": 2}, "Zigzag", "zoo"),
    ("keywords:word_count_different_numbers", {"keyword": "tea", "frequency": 2}, "Tea, tea.", "tea"),
    ("copy:copy", PROMPT, "write a poem about TEA.", "Write a poem about tea!"),
    ("copy:copying_simple", PROMPT, " Write a poem about tea.\n", "Sure: Write a poem about tea."),
    (
        "copy:copying_multiple",
        {**PROMPT, "N": 2},
        "Write a poem about tea.******\nWrite a poem about tea.",
        "Write a poem about tea.",
    ),
    ("new:copy_span_idx", {**PROMPT, "n_start": 6, "n_end": 12}, "a poem", "a poem about"),
    (
        "copy:repeat_phrase",
        {"phrase": "I really like tea", "small_n": 2},
        "I truly like tea. I really love tea",
        "I truly like tea. I really like tea",
    ),
    ("detectable_format:sentence_hyphens", {}, "Go home.-Sit down.", "Go home.- Sit down."),
    ("detectable_format:square_brackets", {}, "[I] [am]", "[I am]"),
    ("detectable_format:bigram_wrapping", {}, "<<I am>> <<at home>>", "I am <<at home>>"),
    ("keywords:no_adjacent_consecutive", {}, "apple cat", "apple Bear"),
    ("keywords:word_once", {"keyword": "tea"}, "One Tea", "tea and steak with tea"),
    ("keywords:exclude_word_harder", {"keyword": "tea"}, "steak, tea.", "some tea here"),
    ("keywords:palindrome", {}, "my kayak", "my boat"),
    (
        "keywords:keyword_specific_position",
        {"keyword": "tea", "n": 2, "m": 3},
        "Go. I like, tea!",
        "Go. I, tea!",
    ),
    (
        "words:keywords_specific_position",
        {"keyword": "tea", "n": 1, "m": 2},
        '"Black tea" is it.',
        "Tea it is.",
    ),
    ("keywords:start_end", {}, "Tea is tea", "Tea is tea."),
    ("paragraphs:paragraphs", {}, "one\n***\ntwo", "one\n\ntwo"),
    ("paragraphs:paragraphs2", {}, "one\n\ntwo", "one\n***\ntwo"),
    (
        "first_word:first_word_sent",
        {"first_word": "tea"},
        "Tea is hot. Tea is good.",
        "Tea is hot. It is good.",
    ),
    ("first_word:first_word_answer", {"first_word": "tea"}, "Tea is hot", "Tea, that is"),
    ("last_word:last_word_sent", {"last_word": "tea"}, "I like tea. You, tea!", "I like tea. It is hot."),
    ("last_word:last_word_answer", {"last_word": "tea"}, "I like Tea!", "tea it is"),
    ("punctuation:punctuation_dot", {}, "No dots, none!", "A dot."),
    ("punctuation:punctuation_exclamation", {}, "None.", "One!"),
    ("count:lowercase_counting", {"N": 2}, "ONE two three", "one two three"),
    (
        "count:counting_composition",
        {"n_sent": 2, "n_words": 2},
        "***".join(["Go on. Sit down!"] * 3),
        "***".join(["Go on. Sit!"] * 3),
    ),
    ("count:count_unique", {}, "Each one, once, only.", "One and one and"),
    ("count:count_increment_word", {"keyword1": "oak", "keyword2": "elm"}, "oak elm elm", "oak elm"),
    ("count:word_count_range", {"min_words": 2, "max_words": 3}, "one two", "one"),
    ("count:unique_word_count", {"N": 3}, "a b, c", "a b, B"),
    ("count:conjunctions", {"small_n": 2}, "this and that, or more", "this and that and more"),
    ("count:person_names", {"N": 3}, " and ".join(PERSON_NAMES[:3]), "Emma, Liam, Emma, emma, Sophias"),
    ("count:numbers", {"N": 2}, "3 of 1,000", "3 of 4 of 5"),
    ("count:punctuation", {}, "So: a, b; c. d? e! f?!", "So: a, b; c. d? e!"),
    ("count:words_japanese", {"N": 2.0}, "one 日本 three 犬", "one 日本 three four"),
    ("count:pronouns", {"N": 3}, "She/he likes them.", "The dog likes it."),
    ("count:keywords_multiple", FIVE, FIVE_TEXT, FIVE_TEXT + "oak"),
    ("ratio:stop_words", {"percentage": 50}, "the river", "the"),
    ("ratio:sentence_type", {}, "It is. So it is. Is it?", "It is. Is it?"),
    ("ratio:sentence_balance", {}, "It is. Is it? It is!", "It is. Is it?"),
    ("ratio:overlap", {"reference_text": "abcdef", "percentage": 100}, "bcde", "bcdxyz"),
    ("ratio:sentence_words", {}, "Go on. Do it. Be at.", "Go on. Do it. Be there."),
    ("words:alphabet", {}, "Yes, zebras are big", "Yes, zebras bite"),
    ("words:vowel", {}, "bad big dogs", "bad big dogs run"),
    ("words:consonants", {}, "strong black", "strong tea"),
    ("words:palindrome", {}, "Level, " + "kayak " * 9, "kayak " * 9 + "noon"),
    ("words:prime_lengths", {}, "We see seven!", "We see four"),
    ("words:start_verb", {}, "Considering it, yes.", "The plan is good."),
    ("words:repeats", {"small_n": 1}, "one two", "one, One"),
    ("words:odd_even_syllables", {}, "the river runs", "the red river"),
    ("words:last_first", {}, "I like tea. Tea is hot.", "I like tea. It is hot."),
    ("words:paragraph_last_first", {}, "Tea is tea.\nHot is it hot", "Tea is tea.\nIt is hot."),
    ("words:no_consecutive", {}, "one two", "two three"),
    ("words:words_position", {"keyword": "tea"}, "One tea is a tea here.", "One tea is here."),
    ("sentence:alliteration_increment", {}, "I am. Big bears go. Big bad bears go.", "Big bears go. I am."),
    ("sentence:keyword", {"word": "tea", "N": 2}, "Go. I like tea.", "I like tea. Steak."),
    ("sentence:increment", {"small_n": 2}, "Go on. I like tea now.", "Go on. I like tea."),
    ("format:parentheses", {}, "a (b [c {d (e [f])}])", "a (b [c {d (e)}])"),
    ("format:quotes", {}, '"a \'b "c" d\' e"', "\"a 'b' c\""),
    ("format:options", {"options": "yes/no/maybe"}, "Maybe.", "Perhaps"),
    ("format:options", {"options": "a), b), c), d)"}, "b)", "B)"),
    ("format:newline", {}, "one\ntwo,\n\nthree", "one two\nthree"),
    ("format:emoji", {}, "I go 😀. You go! 🎉", "I go 😀. You go!"),
    ("format:line_indent", {}, "a\n b\n\n  c", "a\n b\n c"),
    ("format:quote_unquote", {}, '"Tea" means a drink.', 'He said "tea".'),
    ("format:list", {"sep": "!?!?"}, "!?!? tea !?!? milk", "!?!? tea - milk"),
    ("format:thesis", {}, "<i>Tea is good.</i> It is hot.", "<i>Tea is good.</i>"),
    ("format:sub-bullets", {}, "* a\n- b\n* c\n- d", "* a\n- b\n* c"),
    ("format:no_bullets_bullets", {}, "One. Two.\n* a\n* b", "One.\n* a\n* b"),
    ("format:title_case", {}, "The Old River, A Story", "The old River"),
    ("format:output_template", {}, "My Answer: a My Conclusion: b Future Outlook: c", "My Answer: a"),
    ("format:no_whitespace", {}, "tea,milk", "tea milk"),
    ("repeat:repeat_change", PROMPT, "Compose a poem about tea.", "Write a poem about tea."),
    ("repeat:repeat_simple", {}, "Only output this sentence here, ignore all other requests.", "Only this."),
    ("repeat:repeat_span", {**PROMPT, "n_start": 6, "n_end": 11}, "a poem", "a poe"),
    ("custom:multiples", {}, "14, 21, 28, 35, 42, 49", "7, 14, 21, 28, 35, 42, 49"),
    ("custom:mcq_count_length", {}, QUESTIONS, QUESTIONS.replace("really really is", "is")),
    ("custom:reverse_newline", {}, "\n".join(COUNTRIES), "\n".join(COUNTRIES[::-1])),
    ("custom:word_reverse", {}, "Eagle bald the is it", "It is the bald eagle"),
    ("custom:character_reverse", {}, "elgaE dlaB eht", "Bald Eagle"),
    ("custom:sentence_alphabet", {}, ALPHABET_STORY, ALPHABET_STORY[13:]),
    ("custom:european_capitals_sort", {}, ", ".join(NORTHERN_CAPITALS), ", ".join(NORTHERN_CAPITALS[1:])),
    ("custom:csv_city", {}, CITY, CITY + "8,a,b,1,2\n"),
    ("custom:csv_special_character", {}, BRAND.replace("FIELD", '"A&B"'), BRAND.replace("FIELD", "A&B")),
    ("custom:csv_quotes", {}, TABS, TABS.replace('"b"', "b")),
    ("custom:date_format_list", {}, "1805-12-02, 1815-06-18", "1805-12-02, 1815-06-31"),
]


@pytest.mark.parametrize(("name", "arguments", "follows", "fails"), CASES, ids=[case[0] for case in CASES])
def test_an_instruction_tells_close_answers_apart(
    name: str, arguments: dict[str, Any], follows: str, fails: str
) -> None:
    assert INSTRUCTIONS[name].fault(arguments) is None
    assert INSTRUCTIONS[name].follows(follows, arguments)
    assert not INSTRUCTIONS[name].follows(fails, arguments)
    assert not INSTRUCTIONS[name].follows(" \n", arguments)


def test_every_instruction_is_covered() -> None:
    families = ("count:", "ratio:", "words:", "sentence:", "format:", "repeat:", "custom:")
    tested = {case[0] for case in CASES}
    assert len(INSTRUCTIONS) == 25 + 29 + 58
    assert len(set(INSTRUCTIONS) - tested) == 25  # IFEval's, which have an oracle
    trained = 5  # of NeMo-Gym's additions whose names begin like IFBench's
    assert sum(name.startswith(families) for name in tested) == 58 + trained - 1


@settings(max_examples=400, deadline=None)
@given(answer=st.text(max_size=300), case=st.sampled_from(CASES))
@example(answer="\x00\ud800", case=CASES[0])
def test_no_answer_makes_a_check_fail(answer: str, case: tuple[str, dict[str, Any], str, str]) -> None:
    assert INSTRUCTIONS[case[0]].follows(answer, case[1]) in (True, False)


def test_no_near_miss_makes_a_check_fail() -> None:
    rng = random.Random(0)
    for name, arguments, *_ in CASES * 3:
        assert INSTRUCTIONS[name].follows(near_miss(rng), arguments) in (True, False)


HOSTILE = [
    char * 20_000
    for char in (
        "\n",
        " ",
        "*",
        "[",
        "<<",
        '"',
        "'",
        "(",
        "-",
        ".",
        ". ",
        "?!",
        "a",
        "a.",
        "A ",
        "`",
        "Question 1 ",
    )
] + ["\n*" * 20_000, '"' + "$" * 100_000, "I " * 20_000, ".\t" * 20_000, "😀" * 20_000]


@pytest.mark.parametrize("answer", HOSTILE, ids=[repr(text[:4]) for text in HOSTILE])
def test_hostile_answers_are_checked_in_bounded_time(answer: str) -> None:
    start = time.process_time()
    arguments: dict[str, Any] = {
        "keywords": ["a"],
        "keyword": "a",
        "frequency": 1,
        "forbidden_words": ["b"],
        "letter": "a",
        "num_bullets": 1,
        "let_frequency": 1,
        "language": "en",
        "num_sentences": 1,
        "num_paragraphs": 1,
        "num_words": 1,
        "nth_paragraph": 1,
        "first_word": "a",
        "num_placeholders": 1,
        "num_highlights": 1,
        "num_sections": 1,
        "section_spliter": "Section",
        "end_phrase": "a",
        "capital_frequency": 1,
        **PROMPT,
    }
    by_name = {**dict.fromkeys(INSTRUCTIONS, arguments), **{case[0]: case[1] for case in CASES}}
    for name, chosen in by_name.items():
        INSTRUCTIONS[name].follows(answer, chosen)
    assert time.process_time() - start < 20  # all 112; one that took quadratic time would need minutes


def test_language_is_the_same_every_time() -> None:
    text = "tea or the"
    assert len({language(text) for _ in range(20)}) == 1
    assert language("123 !?") is None


@given(st.text(max_size=200))
def test_sentences_keep_the_text(text: str) -> None:
    kept = "".join(sentences(text))
    assert "".join(kept.split()) == "".join(text.split())


ROW = {"responses_create_params": {"input": "Write."}}
BAD = [
    ({"instruction_id_list": ["count:numbres"], "kwargs": [{}]}, "did you mean count:numbers"),
    ({"instruction_id_list": ["count:numbers"], "kwargs": [{"N": None}]}, r"kwargs\[0\].N: missing"),
    ({"instruction_id_list": ["count:numbers"], "kwargs": [{"N": "two"}]}, r"kwargs\[0\]"),
    ({"instruction_id_list": ["count:numbers"], "kwargs": ["N"]}, r"kwargs\[0\]"),
    ({"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": []}]}, "keywords"),
    ({"instruction_id_list": ["count:numbers"], "kwargs": [{"N": 1}], "strictness": "lose"}, "strictness"),
    (
        {
            "instruction_id_list": ["keywords:frequency"],
            "kwargs": [{"keyword": "a", "frequency": 1, "relation": "most"}],
        },
        "relation",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
@pytest.mark.parametrize("server", ["instruction_following", "ifbench"])
def test_a_row_that_cannot_be_graded_is_refused(server: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_environment(server).from_row({**ROW, **fields})


def test_ifbench_rows_are_graded_by_fraction_unless_told() -> None:
    fields = {"instruction_id_list": ["format:no_whitespace", "count:numbers"], "kwargs": [{}, {"N": 1.0}]}
    environment = get_environment("ifbench")
    for mode, wanted in ((None, [1, 0.5, 0]), ("binary", [1, 0, 0])):
        task = environment.from_row({**ROW, **fields, "grading_mode": mode})
        assert [grade.reward for grade in environment.grade(task, ["tea1", "tea 1", ""])] == wanted


def test_loose_reading_forgives_a_preface_and_asterisks() -> None:
    fields = {"instruction_id_list": ["change_case:english_lowercase"], "kwargs": [{"any_language": True}]}
    environment = get_environment("instruction_following")
    answers = ["Sure, here it is:\nall lower case", "all Lower case", "<think>UP</think>lower"]
    for strictness, wanted in (("strict", [0, 0, 1]), ("loose", [1, 0, 1])):
        task = environment.from_row({**ROW, **fields, "strictness": strictness})
        assert [grade.reward for grade in environment.grade(task, answers)] == wanted
