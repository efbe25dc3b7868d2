"""Runs in the clients' own environment: LangChain's ChatOpenAI over an OpenAI endpoint, as its documents show.

    python use_langchain.py BASE_URL MODEL PROBLEM

Prints one JSON object: an answer, a stream, and what an unknown model raises.
"""

import json
import sys

import openai
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI


def main(url, model, problem):
    asked = {"base_url": url, "api_key": "none", "seed": 1, "timeout": 300, "max_retries": 0}
    chat = ChatOpenAI(model=model, temperature=0.8, max_tokens=200, **asked)
    messages = [SystemMessage("You are a careful tutor."), HumanMessage(problem)]
    whole = chat.invoke(messages)
    chunks = list(chat.stream(messages))
    try:
        ChatOpenAI(model="nobody", **asked).invoke(messages)
        raised = "nothing"
    except openai.NotFoundError as error:
        raised = str(error)
    got = {
        "answer": whole.content,
        "finish": whole.response_metadata["finish_reason"],
        "tokens": whole.usage_metadata["total_tokens"],
        "streamed": "".join(chunk.content for chunk in chunks),
        "raised": raised,
    }
    json.dump(got, sys.stdout)


main(*sys.argv[1:])
