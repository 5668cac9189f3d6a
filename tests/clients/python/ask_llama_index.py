"""llama-index-llms-ollama: a tool called whole, streamed and by an agent; thinking, structured output."""

import asyncio

from harness import MODEL, URL, asked, get_weather, tell
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.ollama import Ollama
from pydantic import BaseModel

llm = Ollama(model=MODEL, base_url=URL, request_timeout=30)
weather = FunctionTool.from_defaults(get_weather)


class Report(BaseModel):
    city: str


def calls(answer):
    return [
        [call.tool_name, call.tool_kwargs]
        for call in llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    ]


async def by_agent():
    said = await FunctionAgent(tools=[weather], llm=llm).run("hello")
    alone = await llm.achat([ChatMessage("hello")])
    return [str(said), alone.message.content]


whole = llm.chat_with_tools([weather], user_msg="hello")
streamed = list(llm.stream_chat_with_tools([weather], user_msg="hello"))
thought = Ollama(model=MODEL, base_url=URL, thinking=True).chat([ChatMessage("hello")])
tell(
    whole=calls(whole),
    streamed=calls(streamed[-1]),
    agent=asyncio.run(by_agent()),
    asked=asked,
    said="".join(part.delta or "" for part in llm.stream_chat([ChatMessage("hello")])),
    thought=[block.content for block in thought.message.blocks if block.block_type == "thinking"],
    structured=llm.structured_predict(Report, PromptTemplate("hello")).model_dump(),
)
