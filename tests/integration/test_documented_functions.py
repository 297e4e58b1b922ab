"""Every function that is for people is in the reference."""

import re
from collections.abc import Callable
from typing import Any

from support.documents import REFERENCE


def test_every_public_function_is_documented(sql: Callable[..., list[Any]]) -> None:
    internal = {  # called by workers and views
        "sign_on", "heartbeat", "sign_off", "claim", "release", "sweep", "store", "open_results",
        "known_embeddings", "register_model", "collect_contents", "backlog", "take_queries",
        "answer_query", "refuse_query", "expire_queries", "ticket_queues", "labels_of",
        "vectors_of", "notify_settled", "close_segment", "next_build", "build_segment",
        "announce_segments", "exchange_segments", "drop_retired", "unindexed", "keep_label_vector",
        "labels_due", "store_labels", "serves", "walk_models", "index_words_anew",
        "query_waits", "retired_queues", "measure_recall", "note_files", "prune_files",
        "files_below", "wake_jobs", "follow_tables",
        "take_label_task", "label_examples", "keep_teaching", "end_label_task",
        "open_scores", "decide_items", "example_groups",
        "prepare_model", "map_due", "map_pairs", "map_queries", "keep_map", "judge_map",
        "add_up_tallies", "thumbnails_due", "open_thumbnails", "keep_thumbnails", "next_thumbnails",
    }  # fmt: skip
    rows = sql("SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace")
    names = {name for (name,) in rows if not name.startswith("_")}
    documented = set(re.findall(r"pgclip\.(\w+)\(", REFERENCE))
    documented -= {"Client", "AsyncClient", "index_table_sql"}
    assert documented == names - internal
    views = sql("SELECT viewname FROM pg_views WHERE schemaname = 'pgclip'")
    assert all(f"`pgclip.{name}`" in REFERENCE for (name,) in views if not name.startswith("_"))
