"""langchain-ollama: a tool called whole and streamed, its result taken; thinking, structured output, embeddings."""

from harness import CITY, MODEL, URL, asked, get_weather, tell
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM

chat = ChatOllama(model=MODEL, base_url=URL, validate_model_on_init=True)
weather = tool(get_weather)
ready = chat.bind_tools([weather])
hello = HumanMessage("hello")


def calls(message):
    return [[call["name"], call["args"]] for call in message.tool_calls]


called = ready.invoke([hello])
streamed = None
for part in ready.stream([hello]):
    streamed = part if streamed is None else streamed + part
results = [weather.invoke(call) for call in called.tool_calls]
thought = ChatOllama(model=MODEL, base_url=URL, reasoning=True).invoke([hello])
tell(
    whole=calls(called),
    streamed=calls(streamed),
    asked=asked,
    after=ready.invoke([hello, called, *results]).content,
    counted=called.usage_metadata["input_tokens"] > 0,
    said="".join(part.content for part in chat.stream([hello])),
    thought=[thought.additional_kwargs["reasoning_content"], thought.content],
    structured=chat.with_structured_output({"title": "report", **CITY}, method="json_schema").invoke([hello]),
    completed=OllamaLLM(model=MODEL, base_url=URL).invoke("hello"),
    rows=len(OllamaEmbeddings(model="tinyembed", base_url=URL).embed_documents(["hello", "world"])),
)
