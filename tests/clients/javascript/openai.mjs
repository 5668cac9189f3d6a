import OpenAI from 'openai'
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { ask, collect, endless, model, refusal, run, streaming, wasCut, weather } from './harness.mjs'

const at = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey: 'unused', maxRetries: 0 })
const tools = [{ type: 'function', function: weather }]
const Report = z.object({ city: z.string() })
const plain = { chat_template_kwargs: { enable_thinking: false } }

await run({
  async chat(url) {
    const chat = at(url).chat.completions
    const whole = await chat.create({ model, messages: ask, ...plain })
    const asked = { model, messages: ask, reasoning_effort: 'low', stream_options: { include_usage: true } }
    const chunks = await collect(await chat.create({ ...asked, stream: true }))
    const deltas = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta))
    return {
      whole: [whole.choices[0].message.content, whole.choices[0].finish_reason, whole.model],
      streamed: deltas.map((delta) => delta.content ?? '').join(''),
      thought: deltas.map((delta) => delta.reasoning_content ?? '').join(''),
      usage: chunks.at(-1).usage.completion_tokens > 0,
    }
  },

  async parses(url) {
    const client = at(url)
    const chat = await client.chat.completions.parse({
      model,
      messages: ask,
      response_format: zodResponseFormat(Report, 'report'),
    })
    const response = await client.responses.parse({ model, input: 'hello', text: { format: zodTextFormat(Report, 'report') } })
    return [chat.choices[0].message.parsed, response.output_parsed]
  },

  async tools(url) {
    const chat = at(url).chat.completions
    const whole = await chat.create({ model, messages: ask, tools, tool_choice: 'required' })
    const final = await chat.stream({ model, messages: ask, tools }).finalChatCompletion()
    const asked = []
    const runnable = { ...weather, parse: JSON.parse, function: (given) => asked.push(given) && 'sunny' }
    const runner = chat.runTools({ model, messages: ask, tools: [{ type: 'function', function: runnable }], ...plain })
    const said = await runner.finalContent()
    const streamed = chat.runTools({ model, messages: ask, tools: [{ type: 'function', function: runnable }], ...plain, stream: true })
    return {
      whole: whole.choices[0].message.tool_calls.map((call) => call.function),
      streamed: final.choices[0].message.tool_calls.map((call) => call.function),
      reasons: [whole.choices[0].finish_reason, final.choices[0].finish_reason],
      run: [said, await streamed.finalContent()],
      asked,
    }
  },

  async embeds(url) {
    const { embeddings } = at(url)
    const packed = await embeddings.create({ model: 'tinyembed', input: ['hello', 'world'] })
    const numbers = await embeddings.create({ model: 'tinyembed', input: 'hello', encoding_format: 'float' })
    const differences = packed.data[0].embedding.map((value, at) => Math.abs(value - numbers.data[0].embedding[at]))
    return { rows: packed.data.length, width: packed.data[0].embedding.length, difference: Math.max(...differences) }
  },

  async completes(url) {
    const whole = await at(url).completions.create({ model, prompt: ['a', 'b'], max_tokens: 3 })
    const parts = await collect(await at(url).completions.create({ model, prompt: 'a', stream: true }))
    return { whole: whole.choices.map((choice) => choice.text), streamed: parts.map((part) => part.choices[0].text).join('') }
  },

  async models(url) {
    const client = at(url)
    const listed = await collect(client.models.list())
    return { listed: listed.map((one) => one.id).sort(), found: (await client.models.retrieve(model)).object }
  },

  async responses(url) {
    const { responses } = at(url)
    const first = await responses.create({ model, input: 'hello', reasoning: { effort: 'none' } })
    const stream = responses.stream({ model, input: 'hello', reasoning: { effort: 'low', summary: 'auto' } })
    const events = await collect(stream)
    const final = await stream.finalResponse()
    const thinking = responses.stream({ model, input: 'hello', reasoning: { effort: 'low' } })
    const thoughts = (await collect(thinking)).filter((event) => event.type === 'response.reasoning_text.delta')
    await thinking.finalResponse()
    const on = await responses.create({ model, input: 'more', previous_response_id: first.id })
    const kept = await responses.retrieve(first.id)
    const counted = await responses.inputTokens.count({ model, input: 'hello', reasoning: { effort: 'none' } })
    const items = await collect(responses.inputItems.list(on.id, { order: 'asc', limit: 1 }))
    const cancelled = await refusal(() => responses.cancel(first.id))
    await responses.delete(first.id)
    return {
      whole: [first.output_text, first.status],
      ends: [events[0].type, events.at(-1).type],
      numbered: events.every((event, at) => event.sequence_number === at),
      streamed: final.output_text,
      thought: thoughts.map((event) => event.delta).join(''),
      longer: on.usage.input_tokens > first.usage.input_tokens,
      kept: kept.output_text,
      counted: counted.input_tokens === first.usage.input_tokens,
      listed: items.map((item) => item.content[0].text),
      cancelled,
      forgotten: await refusal(() => responses.create({ model, input: 'more', previous_response_id: first.id })),
    }
  },

  async functions(url) {
    const { responses } = at(url)
    const functions = [{ type: 'function', strict: false, ...weather }]
    const stream = responses.stream({ model, input: 'hello', tools: functions })
    await collect(stream)
    const called = await stream.finalResponse()
    const call = called.output.find((item) => item.type === 'function_call')
    const result = { type: 'function_call_output', call_id: call.call_id, output: 'sunny' }
    const after = await responses.create({ model, input: [result], tools: functions, previous_response_id: called.id })
    return { name: call.name, arguments: JSON.parse(call.arguments), after: after.output_text }
  },

  async errors(url) {
    const chat = at(url).chat.completions
    return {
      unknown: await refusal(() => chat.create({ model: 'nope', messages: ask })),
      unknown_streamed: await refusal(() => chat.create({ model: 'nope', messages: ask, stream: true })),
      empty: await refusal(() => chat.create({ model, messages: [] })),
      tool: await refusal(() => chat.create({ model, messages: ask, tools: [{ type: 'web_search' }] })),
      long: await refusal(() => chat.create({ model, messages: [{ role: 'user', content: 'a'.repeat(200_000) }] })),
    }
  },

  async aborted(url) {
    const stream = await at(url).chat.completions.create({ model, messages: endless, stream: true })
    let seen = 0
    for await (const _ of stream) if (++seen === 3) stream.controller.abort()
    return { seen: seen >= 3, cut: await wasCut(url) }
  },

  async killed(url) {
    const stream = await at(url).chat.completions.create({ model, messages: endless, stream: true })
    let told = false
    return await refusal(async () => {
      for await (const _ of stream) {
        if (!told) streaming()
        told = true
      }
    })
  },
})
