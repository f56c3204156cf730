"""What a person is told who has started a server."""

import shlex

import click

from api.keys import FIRST_KEY_FILE
from api.readonly import Standing
from api.settings import Settings


def greet(settings: Settings, new_key: str | None, url: str, standing: Standing | None) -> None:
    """Tell a person what to do next. On stdout: the log has stderr."""
    first_key = settings.data / FIRST_KEY_FILE
    if not settings.auth:
        bearer = ""
    elif settings.api_key:
        bearer = ' -H "Authorization: Bearer $TURNLOG_API_KEY"'
    elif new_key:
        click.echo(f"API key (made just now, kept in {first_key}): {new_key}")
        bearer = f' -H "Authorization: Bearer {new_key}"'
    elif first_key.exists():
        click.echo(f"API key: in {first_key}")
        bearer = f' -H "Authorization: Bearer $(cat {shlex.quote(str(first_key))})"'
    else:
        click.echo("No key of your own at hand? Make one: turnlog keys add NAME")
        bearer = ' -H "Authorization: Bearer YOUR_KEY"'
    body = '{"messages": [{"role": "user", "content": "Hello, I am Ada."}]}'
    if not settings.default_model:
        body = '{"model": "YOUR_MODEL", ' + body[1:]
    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    session = ' -H "X-Hermes-Session-Id: my-first-session"' if settings.auth else ""
    models = ", ".join(upstream.url for upstream in settings.all_upstreams) or "built-in"
    click.echo(f"turnlog serves {url} (model: {models}, data: {settings.data})")
    if standing:
        click.echo(f"It serves the log as of {standing}, read only")
        click.echo(f"Try it:\n  curl {url}/api/sessions{bearer}")
        return
    click.echo(f"Try it:\n  curl {url}/v1/chat/completions{bearer}{session} -d {shlex.quote(body)}")
