"""A server of a chat API: what it takes, found out by asking it, and what its replies say."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from search.engines.remote.chat_tokens import END
from search.engines.remote.http import HttpClient, RequestLimits, asking, bad_answer
from search.errors import ConfigError, EngineError
from search.types import FinishReason

_BEGUN, _REST = "Monday, Tuesday, Wednes", "day"
"""A turn that breaks off inside a word: whoever continues it goes on with the rest, a new turn begins anew."""

CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
"""By these vLLM and SGLang continue an assistant's turn."""


class ChatServer(NamedTuple):
    """One server, and what it takes.

    Attributes:
        client: how it is reached.
        url: the API's base, e.g. https://api.openai.com/v1.
        model: its name there.
        limit: what it calls the limit of a reply's tokens.
        seeds: whether it takes seeds.
        continues: whether it continues an assistant's turn.
        tells_usage: whether it says how many tokens a request took.
    """

    client: HttpClient
    url: str
    model: str
    limit: str = "max_tokens"
    seeds: bool = True
    continues: bool = False
    tells_usage: bool = False

    def __str__(self) -> str:
        return self.url


class Reply(NamedTuple):
    """What a server wrote.

    Attributes:
        ids: its bytes, and the end of the text where it ended it.
        finish: STOP: at a string that it was asked to stop at, which is among the ids.
    """

    ids: tuple[int, ...]
    finish: FinishReason


def read_replies(server: ChatServer, answer: Any) -> list[Reply]:
    """What a server wrote, one or more.

    Raises:
        EngineError: it gave a request up, withheld a reply, or answered what makes no sense.
    """
    try:
        replies = [_reply(server, choice) for choice in answer["choices"]]
    except (KeyError, TypeError, IndexError, AttributeError):
        replies = []
    if not replies:
        raise bad_answer(str(server), answer) from None
    return replies


def _reply(server: ChatServer, choice: Mapping[str, Any]) -> Reply:
    text, finish = choice["message"].get("content") or "", choice.get("finish_reason")
    if not isinstance(text, str) or finish not in ("stop", "length", "content_filter", "abort"):
        raise bad_answer(str(server), choice)
    if finish == "abort":
        raise EngineError(f"{server} gave a request up", endpoint=str(server), retryable=True)
    if finish == "content_filter":
        raise EngineError(f"{server} withheld its reply (content filter)", endpoint=str(server))
    matched = choice.get("stop_reason") or choice.get("matched_stop")
    cut = matched if finish == "stop" and isinstance(matched, str) else ""
    if not text.endswith(cut):
        text += cut
    if not text and finish == "length":
        raise EngineError(
            f"{server} wrote nothing that can be read within its limit of tokens",
            endpoint=str(server),
            hint="a model that thinks first needs more: --max-tokens",
        )
    ids = tuple(text.encode("utf-8", "replace"))
    if finish == "length":
        return Reply(ids, FinishReason.LENGTH)
    return Reply(ids, FinishReason.STOP) if cut else Reply((*ids, END), FinishReason.EOS)


async def find_out(model: str, url: str, limits: RequestLimits) -> ChatServer:
    """What a server takes and tells; two short requests. It is returned with a client that is closed.

    Raises:
        ConfigError: it cannot be reached, or refuses even the plainest request.
    """
    async with asking("chat", limits) as client:
        if model.startswith("mini:"):
            raise ConfigError(f"engine chat: name the model with --policy; {url} serves {await _served(client, url)}")
        question = {"role": "user", "content": "Write the days of the week, with commas between them."}
        answer: Any = None
        for limit, seeds in product(("max_tokens", "max_completion_tokens"), (True, False)):
            body = {"model": model, "messages": [question], limit: 64, **({"seed": 1} if seeds else {})}
            try:
                answer = await client.post(f"{url}/chat/completions", body)
                break
            except EngineError as error:
                if error.status not in (400, 422):
                    raise
                refused = error
        else:
            raise refused
        if not _is_chat(answer):
            raise bad_answer(url, answer)
        server = ChatServer(client, url, model, limit, seeds, tells_usage=isinstance(answer.get("usage"), dict))
        turn = {"role": "assistant", "content": _BEGUN}
        body = {"model": model, "messages": [question, turn], limit: 8, "temperature": 0.0, "stop": [","]}
        try:
            reply = read_replies(server, await client.post(f"{url}/chat/completions", {**body, **CONTINUED}))[0]
        except EngineError as error:
            if error.status not in (400, 422) and error.status is not None:
                raise
            return server  # it refuses what it does not know
        # A step's end must be told from the text's, too.
        goes_on = reply.ids[: len(_REST)] == tuple(_REST.encode()) and reply.finish is FinishReason.STOP
        return server._replace(continues=goes_on)


def _is_chat(answer: Any) -> bool:
    """Whether an answer is one of a chat API, whatever it says."""
    try:
        return isinstance(answer["choices"][0]["message"], dict)
    except (KeyError, TypeError, IndexError):
        return False


async def _served(client: HttpClient, url: str) -> str:
    """The names of its models, for a person."""
    try:
        answer = await client.get(f"{url}/models")
        return ", ".join(str(one["id"]) for one in answer["data"][:5]) or "none"
    except (EngineError, KeyError, TypeError):
        return "what its provider lists"
