"""Chains as lists: what is refused before anything runs, and in which words."""

import pytest

from ames.chains.chain import Chain, parse_chain, settings_of
from ames.chains.rerank_step import Rerank
from ames.chains.step import LOCAL, OTHER, VECTORS
from ames.errors import AmesError

ALL = {VECTORS, LOCAL, OTHER}


@pytest.mark.parametrize(
    ("items", "facts", "message"),
    [
        (
            ["alpha-qe"],
            ALL,
            r"c, step 1 \(alpha-qe\): needs a shortlist with cosines .*: put search",
        ),
        (["rootsift_ames"], ALL, r"c, step 1 \(rerank\): needs a shortlist or a re-ranked list: put search"),
        (["search"], {LOCAL}, r"step 1 \(search\): needs global descriptors; the data set has none"),
        (["search", "rootsift_ames"], {VECTORS}, r"step 2 \(rerank\): needs local descriptors; the data set"),
        (
            ["search", "search"],
            ALL,
            r"step 2 \(search\): makes a new shortlist, and that of step 1",
        ),
        (["search", "dba"], ALL, "c: ends without a shortlist: put search after its last step"),
        (["search", "dba", "superglobal"], ALL, r"and step 2 \(dba\) has replaced it: put search in between"),
        (
            ["search", "superglobal", "alpha-qe"],
            ALL,
            r"step 3 .*, and step 2 \(superglobal\) has replaced it: put it before that step",
        ),
        (
            ["search", "rootsift_ames", "superglobal"],
            ALL,
            r"step 3 .* needs a shortlist, and step 2",
        ),
        (
            ["search", "rootsift_ames", "dba", "search"],
            ALL,
            r"step 3 \(dba\): the re-ranked list, that of step 2 \(rerank\), would be lost: put dba before",
        ),
        (["search", "rootsift_ames", "dba"], ALL, r"step 3 \(dba\): the re-ranked list"),
        (
            ["search", "rootsift_ames", "alpha-qe"],
            ALL,
            r"step 3 .* with cosines .*, and step 2 \(rerank\) has replaced it: put it before that step$",
        ),
        (
            ["search", "chamfer", {"rootsift_ames": {"num_rerank": 101}}],
            ALL,
            r"step 3 \(rerank\): re-ranks 101 candidates, the one before only 100: give as many or fewer",
        ),
    ],
)
def test_steps_that_do_not_fit(items, facts, message):
    with pytest.raises(AmesError, match=message):
        parse_chain("c", items).check_order(facts)


@pytest.mark.parametrize(
    "items",
    [
        ["search"],
        ["shortlist"],
        ["dba", "search", "alpha-qe", "superglobal", "rootsift_ames"],
        ["search", {"chamfer": {"num_rerank": 50}}, {"rootsift_ames": {"num_rerank": 20}}],
        ["search", "superglobal", "superglobal"],
        ["search", "average-qe", "alpha-qe"],
    ],
)
def test_steps_that_fit(items):
    parse_chain("c", items).check_order(ALL)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], r"c: a chain is a list of steps \(search, "),
        ("search", "c: a chain is a list of steps"),
        ([3], "c, step 1: 3 is no step: give a name"),
        ([{"search": {}, "dba": {}}], "c, step 1: .* is no step"),
        (["serch"], "c, step 1: step 'serch' does not exist; did you mean search"),
        ([{"search": {"top": 3}}], r"c, step 1 \(search\): setting 'top' does not exist"),
        ([{"search": {"k": "3"}}], r"c, step 1 \(search\): k is '3': give a whole number"),
        ([{"search": {"k": True}}], r"c, step 1 \(search\): k is True: give a whole number"),
        ([{"search": [3]}], r"c, step 1 \(search\): settings are \[3\]: give {SETTING: VALUE}"),
        ([{"rootsift_ames": 100}], r"c, step 1 \(rerank\): settings are 100: give {SETTING: VALUE}"),
        ([{"chamfer": {"model": "spatial"}}], "chamfer is a model: leave model=spatial out"),
        ([{"rerank": {}}], r"c, step 1 \(rerank\): model is missing"),
        ([{"rootsift_ames": {"lamb": 0.5}}], "lamb and temp belong together: give both, or none"),
        ([{"rootsift_ames": {"lamb": 2, "temp": 1}}], r"lamb 2 is outside \[0, 1\]"),
        ([{"rootsift_ames": {"num_rerank": 0}}], r"c, step 1 \(rerank\): num_rerank 0 is below 1"),
        ([{"superglobal": {"top": 0}}], "top is 1 or more"),
    ],
)
def test_lists_that_cannot_be_read(items, message):
    with pytest.raises(AmesError, match=message):
        parse_chain("c", items)


def test_a_chain_can_be_written_and_read_again():
    items = ["search", {"alpha-qe": {"neighbours": 3}}, {"chamfer": {"lamb": 0.1, "temp": 2.0}}]
    chain = parse_chain("c", items)
    written = [settings_of(step) for step in chain.steps]
    assert written == [
        {"search": {}},
        {"alpha-qe": {"neighbours": 3}},
        {"rerank": {"model": "chamfer", "lamb": 0.1, "temp": 2.0}},
    ]
    assert parse_chain("c", written) == chain
    assert chain.named("d") == Chain("d", chain.steps)
    assert isinstance(chain.steps[-1], Rerank)
