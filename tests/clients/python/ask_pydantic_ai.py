"""pydantic-ai: an agent that calls a tool, whole and streamed, by chat completions and by responses; structured output."""

import asyncio

from harness import MODEL, URL, asked, get_weather, tell
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider

base = f"{URL}/v1"
chat = OllamaModel(MODEL, provider=OllamaProvider(base_url=base, api_key="unused"))
responses = OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=base, api_key="unused"))


class Report(BaseModel):
    city: str


async def streamed(model):
    async with Agent(model, tools=[get_weather]).run_stream("hello") as run:
        return await run.get_output()


async def refused():
    provider = OllamaProvider(base_url=base, api_key="unused")
    try:
        await Agent(OllamaModel("nope", provider=provider)).run("hello")
    except ModelHTTPError as error:
        return error.status_code


async def main():
    runs = [await Agent(model, tools=[get_weather]).run("hello") for model in (chat, responses)]
    tell(
        whole=[run.output for run in runs],
        streamed=[await streamed(model) for model in (chat, responses)],
        asked=asked,
        counted=runs[0].usage.input_tokens > 0,
        structured=(await Agent(chat, output_type=NativeOutput(Report)).run("hello")).output.model_dump(),
        refused=await refused(),
    )


asyncio.run(main())
