"""What the steps of a chain compute, against the library's other routes and a twin with loops."""

import copy
import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ames.chains import rerank_step
from ames.chains.chain import parse_chain
from ames.database.store import Database
from ames.errors import AmesError
from ames.evaluation.chains import evaluate_chain, open_chain_set
from ames.evaluation.evaluate import Scoring
from ames.evaluation.protocols import EASY, HARD, MEDIUM, REVISITED
from ames.evaluation.sweep import Reranked
from ames.evaluation.test_set import open_test_set
from ames.global_search.asmk import search_files
from ames.global_search.exact import search
from ames.global_search.shortlist import Shortlist
from ames.local_search.codebook import train_codebook
from ames.models.chamfer import Chamfer
from ames.models.checkpoints import save_weights
from ames.models.elvis import ELViS
from ames.models.load import load_model
from ames.reranking.fusion import Fusion
from ames.reranking.scorer import PairScorer
from helpers import chain_sets


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    return open_chain_set(chain_sets.made(tmp_path_factory.mktemp("sets") / "set"))


@pytest.fixture(scope="module")
def elvis(tmp_path_factory):
    """A checkpoint for the small descriptors."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "elvis.safetensors"
    save_weights(path, ELViS(local_dim=8, embed_dim=4, proj_dim=8))
    return str(path)


def maps(result):
    return {p.name: found.map for p, found in result.results.items()}


def test_the_search_is_the_exact_one(test):
    found = evaluate_chain(parse_chain("c", ["search"]), test, REVISITED)
    files = test.files
    wanted = search(files.query_vectors.all(), files.gallery_vectors.all())
    assert (found.ranking(MEDIUM) == wanted.ids).all()
    assert found.state.stored == {"global": 24.0}
    few = evaluate_chain(parse_chain("c", [{"search": {"k": 7}}]), test, REVISITED)
    assert (few.ranking(MEDIUM) == wanted.ids[:, :7]).all()
    assert found.state.online > 0
    assert found.state.offline == 0


def test_a_chain_with_one_model_is_the_evaluation_of_that_model(test):
    """``Reranked`` scores and sorts in its own way."""
    settings = {"num_rerank": 20, "query_desc_num": 4, "db_desc_num": 3, "lamb": 0.3, "temp": 1.5}
    found = evaluate_chain(parse_chain("c", ["shortlist", {"chamfer": settings}]), test, REVISITED)
    model = Chamfer(local_dim=8)
    opened = open_test_set(test.files.folder, model)
    scores, _ = Scoring(query_count=4, database_count=3)(model, opened, REVISITED, [20])
    reranked = Reranked(opened.shortlist, scores, opened.ground_truth, REVISITED)
    wanted = {p.name: x.map for p, x in reranked.evaluate(20, Fusion(0.3, 1.5)).items()}
    assert maps(found) == pytest.approx(wanted, abs=1e-9)
    assert len(set(wanted.values())) == 3


def twin(test, protocol, stages):
    """Rankings of a cascade under a protocol, query by query, with loops."""
    truth, shortlist = (
        test.ground_truth,
        search(test.files.query_vectors.all(), test.files.gallery_vectors.all()),
    )
    rankings = []
    for number, query in enumerate(truth.queries):
        junk = {int(i) for key in protocol.junk for i in query[key]}
        listed = [int(i) for i in shortlist.ids[number]]
        similarity = dict(zip(listed, shortlist.similarities[number].tolist(), strict=True))
        order = [i for i in listed if i not in junk] + [i for i in listed if i in junk]
        for score, count, lamb, gamma in stages:
            fused = {
                i: lamb * similarity[i] + (1 - lamb) / (1 + np.exp(-gamma * score(number, i)))
                for i in order[:count]
            }
            order = sorted(order[:count], key=lambda i: -fused[i]) + order[count:]
        rankings.append(order)
    return np.array(rankings)


@pytest.mark.parametrize("protocol", [EASY, MEDIUM, HARD], ids=lambda p: p.name)
def test_a_cascade_is_its_stages_in_a_row(test, elvis, protocol):
    queries, gallery = (x.read(range(len(x))) for x in (test.files.queries, test.files.gallery))

    def scored(model, count):
        scorer = PairScorer(model)
        rows = np.repeat(np.arange(len(queries.valid)), len(gallery.valid))
        columns = np.tile(np.arange(len(gallery.valid)), len(queries.valid))
        logits = scorer.score(scorer.queries(queries.trim(count)), gallery.trim(count), rows, columns)
        table = logits.reshape(len(queries.valid), -1)
        return lambda query, image: float(table[query, image])

    stages = [(scored(Chamfer(local_dim=8), 2), 30, 0.5, 3.0), (scored(load_model(elvis), 5), 8, 0.2, 0.5)]
    items = [
        "search",
        {"chamfer": {"num_rerank": 30, "query_desc_num": 2, "db_desc_num": 2, "lamb": 0.5, "temp": 3.0}},
        {elvis: {"num_rerank": 8, "query_desc_num": 5, "db_desc_num": 5, "lamb": 0.2, "temp": 0.5}},
    ]
    found = evaluate_chain(parse_chain("c", items), test, REVISITED)
    assert (found.ranking(protocol) == twin(test, protocol, stages)).all()


def test_a_pair_that_several_protocols_need_is_scored_once(test, monkeypatch):
    counted = []
    score = PairScorer.score

    def counting(self, queries, images, query_rows, image_rows):
        counted.append(len(query_rows))
        return score(self, queries, images, query_rows, image_rows)

    monkeypatch.setattr(PairScorer, "score", counting)
    found = evaluate_chain(parse_chain("c", ["search", {"chamfer": {"num_rerank": 10}}]), test, REVISITED)
    heads = [found.state.rankings[p.name].ids[:, :10] for p in REVISITED]
    pairs = {(q, int(i)) for ids in heads for q, row in enumerate(ids) for i in row}
    assert sum(counted) == len(pairs)


def test_what_an_image_takes(test, elvis):
    items = ["search", {"chamfer": {"db_desc_num": 3}}, {elvis: {"db_desc_num": 2}}]
    stored = evaluate_chain(parse_chain("c", items), test, REVISITED).state.stored
    assert sorted(stored.values()) == sorted([24.0, 3 * 4 * 8, 2 * 256])
    twice = ["search", {"chamfer": {"db_desc_num": 3}}, {"chamfer": {"db_desc_num": 5}}]
    assert sorted(evaluate_chain(parse_chain("c", twice), test, REVISITED).state.stored.values()) == [
        24.0,
        160,
    ]


def test_asmk_is_the_search_of_its_inverted_file(test, tmp_path):
    words = train_codebook(test.files.gallery, 16, seed=3)
    found = evaluate_chain(
        parse_chain("c", [{"asmk": {"codebook": str(words.save(tmp_path / "c.npz")), "k": 20}}]),
        test,
        REVISITED,
    )
    wanted = search_files(test.files.queries, test.files.gallery, words, k=20)
    assert (found.ranking(EASY) == wanted.ids).all()
    assert set(found.state.stored) == {"asmk"}
    assert found.state.offline > 0
    other = replace(test, files=replace(test.files, other=test.files.gallery))
    chain = parse_chain("c", [{"asmk": {"words": 16, "seed": 3, "k": 20}}])
    again = evaluate_chain(chain, other, REVISITED)
    assert (again.ranking(EASY) == wanted.ids).all()
    assert again.state.untimed > 0
    with pytest.raises(AmesError, match=r"step 1 \(asmk\): needs local descriptors of another data set"):
        evaluate_chain(chain, test, REVISITED)


def test_augmentation_is_offline(test):
    found = evaluate_chain(parse_chain("c", [{"dba": {"neighbours": 3}}, "search"]), test, REVISITED)
    assert found.state.offline > 0
    assert maps(found) != maps(evaluate_chain(parse_chain("c", ["search"]), test, REVISITED))


def test_scores_of_an_interrupted_call_are_used_and_the_time_is_not(test, tmp_path):
    chain = parse_chain("c", ["search", {"chamfer": {"num_rerank": 10}}])
    step = chain.steps[1]
    state = test.start(REVISITED, None, tmp_path)
    before = chain.steps[0](state)
    model, _ = step.load(test.files)
    step.score(before, model)  # as far as an interrupted call comes
    assert list(tmp_path.iterdir())
    found = evaluate_chain(chain, test, REVISITED, score_cache=tmp_path)
    assert not found.state.timed
    assert not list(tmp_path.iterdir())
    again = evaluate_chain(chain, test, REVISITED, score_cache=tmp_path)
    assert again.state.timed
    assert maps(again) == maps(found)


def test_global_descriptors_behind_asmk_are_stored(test):
    """SuperGlobal reads them, though the shortlist needs none."""
    other = replace(test, files=replace(test.files, other=test.files.gallery))
    chain = parse_chain("c", [{"asmk": {"words": 16, "k": 20}}, "superglobal"])
    stored = evaluate_chain(chain, other, REVISITED).state.stored
    assert stored["global"] == 24.0
    assert stored["asmk"] > 0


def test_a_global_token_of_a_database_counts_once(test):
    """Its slots hold the token already."""
    model = SimpleNamespace(
        most=None,
        extra_slots=1,
        code_bytes=10,
        fingerprint=lambda: "x",
        slots_of=lambda count, *, coded: count + 1,
    )
    database = object.__new__(Database)
    database.slots = 6
    step = parse_chain("c", [{"chamfer": {"db_desc_num": 9}}]).steps[0]
    state = test.start(REVISITED)
    for gallery, slots in ((database, 6), (test.files.gallery, 6)):  # five descriptors and a token
        found = step.storing(replace(state, files=replace(test.files, gallery=gallery)), model)
        assert list(found.stored.values()) == [10.0 * slots]


def test_a_stored_shortlist_is_not_timed(test):
    found = evaluate_chain(parse_chain("c", ["shortlist"]), test, REVISITED)
    assert found.state.untimed > found.state.online


def test_packed_files_are_refused_before_anything_runs(tmp_path):
    folder = chain_sets.made(tmp_path / "set")
    packed = open_chain_set(folder, other=folder)
    packed.files.gallery.packed = True
    with pytest.raises(AmesError, match=r"c, step 1 \(asmk\): .*gallery_local.hdf5: holds packed codes"):
        parse_chain("c", [{"asmk": {"words": 16}}]).check(packed.files)


@pytest.mark.parametrize("method", ["superglobal", "asmk"])
def test_scores_that_are_no_cosines_do_not_weigh_an_expansion(tmp_path, method):
    folder = chain_sets.made(tmp_path / "set")
    stored = Shortlist.load(folder.shortlist)
    stored.save(tmp_path / "set" / "nn_other.npz", meta={method: {}})
    chain = parse_chain("c", [{"shortlist": {"file": "nn_other"}}, {"alpha-qe": {"neighbours": 2}}])
    with pytest.raises(AmesError, match=f"alpha-qe: the stored shortlist has scores of {method}, no cosines"):
        evaluate_chain(chain, open_chain_set(folder), REVISITED)
    evaluate_chain(
        parse_chain("c", ["shortlist", {"alpha-qe": {"neighbours": 2}}]), open_chain_set(folder), REVISITED
    )


def test_a_stored_shortlist_of_the_earlier_formula_is_named(tmp_path, caplog):
    folder = chain_sets.made(tmp_path / "set")
    Shortlist.load(folder.shortlist).save(
        folder.path / "nn_superglobal.npz", meta={"superglobal": {"top": 4}}
    )
    with caplog.at_level(logging.WARNING):
        evaluate_chain(
            parse_chain("c", [{"shortlist": {"file": "nn_superglobal"}}]), open_chain_set(folder), REVISITED
        )
    assert caplog.text.count("SuperGlobal formula of an earlier version") == 1


def test_a_pair_is_tried_where_the_model_is(test, elvis, monkeypatch):
    """A chain before this one may have moved the model to a GPU."""
    model, _ = parse_chain("c", ["search", elvis]).steps[1].load(test.files)
    seen = []

    def encode(model, local, *, database):
        seen.append(local.descriptors.device)
        return local

    monkeypatch.setattr(rerank_step, "encode_side", encode)
    monkeypatch.setattr(ELViS, "score_encoded", lambda *given: None)
    monkeypatch.setattr(ELViS, "encode", lambda self, tokens: tokens)
    rerank_step._try(copy.deepcopy(model).to("meta"), test.files)
    assert seen == [torch.device("meta")] * 3


def test_sizes_that_are_missing_are_said_before_anything_runs(test):
    chain = parse_chain("c", ["search", "spatial"])
    with pytest.raises(
        AmesError, match=r"c, step 2 \(rerank\): SpatialVerification needs the height and width"
    ):
        chain.check(test.files)
