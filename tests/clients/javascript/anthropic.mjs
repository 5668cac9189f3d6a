import Anthropic from '@anthropic-ai/sdk'
import { betaTool } from '@anthropic-ai/sdk/helpers/beta/json-schema'
import { ask, city, collect, endless, facts, model, refusal, run, streaming, wasCut, weather } from './harness.mjs'

const at = (baseURL) => new Anthropic({ baseURL, apiKey: 'unused', maxRetries: 0 })
const tool = { name: facts.tool, description: weather.description, input_schema: city }
const limited = { model, max_tokens: 2000, messages: ask }

await run({
  async messages(url) {
    const { messages } = at(url)
    const whole = await messages.create({ ...limited, system: 'be kind' })
    const stream = messages.stream(limited)
    let heard = ''
    stream.on('text', (text) => (heard += text))
    const final = await stream.finalMessage()
    const cut = await messages.create({ ...limited, max_tokens: 2 })
    return {
      whole: whole.content.map((block) => block.text),
      reasons: [whole.stop_reason, final.stop_reason, cut.stop_reason],
      heard,
      streamed: final.content.map((block) => block.text),
      usage: [whole.usage.input_tokens > 5, final.usage.output_tokens === whole.usage.output_tokens],
      identified: Boolean(whole._request_id),
    }
  },

  async thinks(url) {
    const thinking = { type: 'enabled', budget_tokens: 1024 }
    const final = await at(url).messages.stream({ ...limited, thinking }).finalMessage()
    const [thought, said] = final.content
    const omitted = { ...limited, thinking: { type: 'adaptive', display: 'omitted' } }
    const hidden = (await at(url).messages.stream(omitted).finalMessage()).content[0]
    return {
      thought: thought.thinking,
      signed: Boolean(thought.signature && hidden.signature),
      said: said.text,
      hidden: [hidden.type, hidden.thinking],
    }
  },

  async tools(url) {
    const client = at(url)
    const called = await client.messages.stream({ ...limited, tools: [tool] }).finalMessage()
    const call = called.content.find((block) => block.type === 'tool_use')
    const result = { type: 'tool_result', tool_use_id: call.id, content: 'sunny' }
    const turns = [...ask, { role: 'assistant', content: called.content }, { role: 'user', content: [result] }]
    const after = await client.messages.create({ ...limited, messages: turns, tools: [tool] })
    const asked = []
    const runnable = betaTool({ ...tool, inputSchema: city, run: (given) => asked.push(given) && 'sunny' })
    const run = await client.beta.messages.toolRunner({ ...limited, tools: [runnable] })
    return {
      call: [call.name, call.input, called.stop_reason],
      after: after.content[0].text,
      run: run.content[0].text,
      asked,
    }
  },

  async structured(url) {
    const format = { type: 'json_schema', schema: { ...city, additionalProperties: false } }
    const told = await at(url).messages.create({ ...limited, output_config: { format } })
    return JSON.parse(told.content[0].text)
  },

  async counts(url) {
    const { messages } = at(url)
    const asked = { model, messages: ask, system: 'be kind', tools: [tool] }
    const counted = await messages.countTokens(asked)
    return [counted.input_tokens, (await messages.create({ ...asked, max_tokens: 5 })).usage.input_tokens]
  },

  async warms(url) {
    const asked = { ...limited, cache_control: { type: 'ephemeral' }, system: 'be kind '.repeat(50) }
    const warm = await at(url).messages.create({ ...asked, max_tokens: 0 })
    const { usage } = await at(url).messages.create(asked)
    return [warm.content, warm.stop_reason, warm.usage.output_tokens, usage.cache_read_input_tokens > 50]
  },

  async models(url) {
    const client = at(url)
    const listed = await collect(client.models.list({ limit: 1 })) // page by page
    return { listed: listed.map((one) => one.id).sort(), found: (await client.models.retrieve(model)).type }
  },

  async errors(url) {
    const { messages } = at(url)
    return {
      unknown: await refusal(() => messages.create({ ...limited, model: 'nope' })),
      unknown_streamed: await refusal(() => messages.stream({ ...limited, model: 'nope' }).finalMessage()),
      empty: await refusal(() => messages.create({ ...limited, messages: [] })),
    }
  },

  async aborted(url) {
    const stream = at(url).messages.stream({ ...limited, max_tokens: 10_000, messages: endless })
    let seen = 0
    const told = await refusal(async () => {
      for await (const event of stream) if (event.type === 'content_block_delta' && ++seen === 3) stream.abort()
    })
    return { kind: told.kind, cut: await wasCut(url) }
  },

  async killed(url) {
    const stream = await at(url).messages.create({ ...limited, max_tokens: 10_000, messages: endless, stream: true })
    let told = false
    return await refusal(async () => {
      for await (const event of stream) {
        if (!told && event.type === 'content_block_delta') {
          streaming()
          told = true
        }
      }
    })
  },
})
