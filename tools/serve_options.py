"""What a server is told at its start, by theme; each becomes an argument of `turnlog serve`."""

from pathlib import Path
from typing import get_args

import click

from api.models.router import Dialect
from api.settings import HistoryOnFailure, RunsAfterCrash, Settings
from tools.options import option, together

DEFAULT = Settings(data=Path())
_SECONDS = click.FloatRange(min=0, min_open=True)

# Where the server listens.
address_options = together(
    option("--host", default=DEFAULT.host, show_default=True, help="Address to listen on."),
    option(
        "--port", type=click.IntRange(0, 65_535), default=DEFAULT.port, show_default=True, help="0 takes a free one."
    ),
)

# Which model server is asked, and how patiently.
upstream_options = together(
    option(
        "--upstream", default="", help="Base URL of an OpenAI-compatible model server, such as http://host:8000/v1."
    ),
    option(
        "--upstream-key-env", default="", help="Name of the environment variable that holds the model server's key."
    ),
    option(
        "--upstream-api",
        type=click.Choice(get_args(Dialect)),
        default=DEFAULT.upstream_api,
        show_default=True,
        help="What the model server is asked in: /v1/chat/completions or /v1/responses.",
    ),
    option(
        "--upstream-retries",
        type=click.IntRange(0, 10),
        default=DEFAULT.retries.times,
        show_default=True,
        help="How often a model server is asked again that can not be connected to, or is busy and soon free.",
    ),
    option("--default-model", default="", help="The model of requests that name none."),
    option(
        "--connect-timeout-s",
        type=_SECONDS,
        default=DEFAULT.timeouts.connect_s,
        show_default=True,
        help="To connect to the model server.",
    ),
    option(
        "--first-byte-timeout-s",
        type=_SECONDS,
        default=DEFAULT.timeouts.first_byte_s,
        show_default=True,
        help="Until its answer begins.",
    ),
    option(
        "--total-timeout-s",
        type=_SECONDS,
        default=DEFAULT.timeouts.total_s,
        show_default=True,
        help="Until its answer is whole.",
    ),
)

# How long turns and streams are waited for.
waiting_options = together(
    option(
        "--lock-wait-s",
        type=_SECONDS,
        default=DEFAULT.lock_wait_s,
        show_default=True,
        help="How long a turn waits for its session.",
    ),
    option(
        "--grace-s",
        type=click.FloatRange(min=0),
        default=DEFAULT.grace_s,
        show_default=True,
        help="For running turns at a stop.",
    ),
    option(
        "--keepalive-s",
        type=_SECONDS,
        default=DEFAULT.keepalive_s,
        show_default=True,
        help="Silence before a stream gets a comment.",
    ),
)

# When a session is compressed, and by whom.
compression_options = together(
    option(
        "--context-tokens",
        type=click.IntRange(min=0),
        default=DEFAULT.compression.context_tokens,
        show_default=True,
        help="The models' context window; 0: sessions are never compressed. [models.NAME] in turnlog.toml for one of "
        "them.",
    ),
    option(
        "--compress-at",
        type=click.FloatRange(0, 1, min_open=True),
        default=DEFAULT.compression.compress_at,
        show_default=True,
        help="The share of the context window at which a session is compressed.",
    ),
    option("--summary-model", default="", help="The model that writes summaries; else the one that is being asked."),
    option("--summary-prompt", default="", help="What it is told to do; else turnlog's own words."),
)

# What is kept, and what of it a turn is given.
history_options = together(
    option(
        "--max-responses",
        type=click.IntRange(min=0),
        default=DEFAULT.responses_max,
        show_default=True,
        help="Stored responses that can be addressed, for each tenant; the least recently used go first. 0: no limit.",
    ),
    option(
        "--response-ttl-s",
        type=click.FloatRange(min=0),
        default=DEFAULT.response_ttl_s,
        show_default=True,
        help="How long a stored response can be addressed. 0: for good.",
    ),
    option(
        "--memory/--no-memory",
        default=DEFAULT.memory,
        show_default=True,
        help="Give the model what was said in other sessions under the same session key.",
    ),
    option(
        "--match-history/--no-match-history",
        default=DEFAULT.match_history,
        show_default=True,
        help="Continue the session whose history a client resends that names none.",
    ),
    option(
        "--history-on-failure",
        type=click.Choice(get_args(HistoryOnFailure)),
        default=DEFAULT.history_on_failure,
        show_default=True,
        help="When the log can not be read: fail with 503, or answer without history and say so in a header.",
    ),
)

# What is at work in the background.
run_options = together(
    option(
        "--max-runs",
        type=click.IntRange(min=1),
        default=DEFAULT.runs_max,
        show_default=True,
        help="Runs and background responses at work or queued at once; more are told to come back.",
    ),
    option(
        "--runs-after-crash",
        type=click.Choice(get_args(RunsAfterCrash)),
        default=DEFAULT.runs_after_crash,
        show_default=True,
        help="What becomes of a run or a background response that was at work when the server died: started again, "
        "once; or given up, a run as cancelled, a response as failed.",
    ),
)

# Who is let in, and to what.
access_options = together(
    option("--api-key", default="", help="The one key of a simple installation; at least 16 characters."),
    option("--no-auth", is_flag=True, help="Ask for no key. Loopback only; session headers are refused."),
    option("--read-only", is_flag=True, help="Serve what was at a moment, and change nothing; needs --views."),
    option(
        "--views",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="The views of that moment, made by 'turnlog replay --until MOMENT --into FILE'.",
    ),
    option("--cors-origin", multiple=True, help="A web page's origin that may use the server; repeatable."),
)

# How durable the log is, and how much the server tells.
storage_options = together(
    option(
        "--synchronous",
        type=click.Choice(["FULL", "NORMAL"]),
        default="FULL",
        show_default=True,
        help="FULL: an acknowledged turn survives power loss. NORMAL: it survives a crash of the process.",
    ),
    option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True),
)
