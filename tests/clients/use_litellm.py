"""Runs in the clients' own environment: litellm over an OpenAI endpoint, as its documents show.

    python use_litellm.py BASE_URL MODEL PROBLEM

Prints one JSON object: an answer, a stream, a conversation, and what an unknown model raises.
"""

import json
import sys

import litellm


def main(url, model, problem):
    asked = {"api_base": url, "api_key": "none", "model": f"openai/{model}", "seed": 1, "timeout": 300}
    messages = [{"role": "system", "content": "You are a careful tutor."}, {"role": "user", "content": problem}]
    whole = litellm.completion(messages=messages, temperature=0.8, max_tokens=200, stop=["Q:"], **asked)
    chunks = list(litellm.completion(messages=messages, stream=True, **asked))
    try:
        litellm.completion(messages=messages, max_retries=0, **{**asked, "model": "openai/nobody"})
        raised = "nothing"
    except litellm.exceptions.NotFoundError as error:
        raised = str(error)
    got = {
        "answer": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "tokens": whole.usage.total_tokens,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks),
        "raised": raised,
    }
    json.dump(got, sys.stdout)


main(*sys.argv[1:])
