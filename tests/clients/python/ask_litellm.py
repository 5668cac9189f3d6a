"""LiteLLM by each of its three ways to a server of this kind: Ollama, OpenAI, Anthropic."""

import json

import litellm
from harness import ASK, MODEL, URL, WEATHER, tell

TOOLS = [{"type": "function", "function": WEATHER}]
WAYS = {
    "ollama": {"model": f"ollama_chat/{MODEL}", "api_base": URL},
    "openai": {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1", "api_key": "unused"},
    "anthropic": {"model": f"anthropic/{MODEL}", "api_base": URL, "api_key": "unused", "max_tokens": 500},
}


def calls(answer):
    return [
        [call.function.name, json.loads(call.function.arguments)]
        for call in answer.choices[0].message.tool_calls or []
    ]


def exchange(way):
    whole = litellm.completion(messages=ASK, tools=TOOLS, **way)
    parts = list(litellm.completion(messages=ASK, tools=TOOLS, stream=True, **way))
    message = whole.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    after = litellm.completion(messages=[*ASK, message.model_dump(), result], tools=TOOLS, **way)
    said = list(litellm.completion(messages=ASK, stream=True, **way))
    return {
        "whole": calls(whole),
        "streamed": calls(litellm.stream_chunk_builder(parts, messages=ASK)),
        "reason": whole.choices[0].finish_reason,
        "after": after.choices[0].message.content,
        "said": "".join(part.choices[0].delta.content or "" for part in said),
        "counted": whole.usage.prompt_tokens > 0 and whole.usage.completion_tokens > 0,
    }


def refusal(way):
    try:
        litellm.completion(messages=ASK, **{**way, "model": way["model"].replace(MODEL, "nope")})
    except litellm.exceptions.NotFoundError as error:
        return "model 'nope' not found" in str(error)
    return False


def rows():
    ollama = litellm.embedding("ollama/tinyembed", ["hello", "world"], api_base=URL)
    openai = litellm.embedding(
        "openai/tinyembed",
        ["hello", "world"],
        api_base=f"{URL}/v1",
        api_key="unused",
        encoding_format="float",
    )
    return [len(answer.data) for answer in (ollama, openai)]


tell(
    exchanges={name: exchange(way) for name, way in WAYS.items()},
    refusals={name: refusal(way) for name, way in WAYS.items()},
    rows=rows(),
)
