import { Ollama } from 'ollama'
import { ask, city, collect, endless, facts, model, refusal, run, streaming, wasCut, weather } from './harness.mjs'

const tools = [{ type: 'function', function: weather }]
const at = (host) => new Ollama({ host })
const text = (parts) => parts.map((part) => part.message.content).join('')
const calls = (parts) => parts.flatMap((part) => part.message.tool_calls ?? []).map((call) => call.function)

await run({
  async chat(url) {
    const client = at(url)
    const whole = await client.chat({ model, messages: ask })
    const parts = await collect(await client.chat({ model, messages: ask, stream: true }))
    const last = parts.at(-1)
    return {
      whole: whole.message.content,
      streamed: text(parts),
      model: last.model,
      done: [last.done, last.done_reason],
      counted: last.prompt_eval_count > 0 && last.eval_count > 0 && last.total_duration > 0,
      generated: (await client.generate({ model, prompt: 'hello' })).response,
    }
  },

  async thinks(url) {
    const client = at(url)
    const { message } = await client.chat({ model, messages: ask, think: true })
    const parts = await collect(await client.chat({ model, messages: ask, think: true, stream: true }))
    const thinking = parts.map((part) => part.message.thinking ?? '').join('')
    return { whole: [message.thinking, message.content], streamed: [thinking, text(parts)] }
  },

  async structured(url) {
    const { message } = await at(url).chat({ model, messages: ask, format: city })
    return JSON.parse(message.content)
  },

  async tools(url) {
    const client = at(url)
    const { message } = await client.chat({ model, messages: ask, tools })
    const streamed = await collect(await client.chat({ model, messages: ask, tools, stream: true }))
    const result = { role: 'tool', tool_name: facts.tool, content: 'sunny' }
    const after = await client.chat({ model, messages: [...ask, message, result], tools })
    return {
      whole: message.tool_calls.map((call) => call.function),
      streamed: calls(streamed),
      after: after.message.content,
    }
  },

  async embeds(url) {
    const client = at(url)
    const { embeddings } = await client.embed({ model: 'tinyembed', input: ['hello', 'world'] })
    const { embedding } = await client.embeddings({ model: 'tinyembed', prompt: 'hello' })
    const norm = Math.hypot(...embeddings[0])
    return { rows: embeddings.length, widths: [embeddings[0].length, embedding.length], norm }
  },

  async models(url) {
    const client = at(url)
    const names = async () => (await client.list()).models.map((listed) => listed.name).sort()
    const steps = await collect(
      await client.create({ model: 'mine', from: 'tinychat', system: 'be kind', parameters: { stop: [' tiny'] }, stream: true }),
    )
    const said = await client.chat({ model: 'mine', messages: ask })
    const shown = await client.show({ model: 'mine' })
    const running = (await client.ps()).models.map((loaded) => loaded.name)
    await client.copy({ source: 'mine', destination: 'copy' })
    const deleted = await client.delete({ model: 'mine' })
    return {
      version: (await client.version()).version,
      created: steps.at(-1).status,
      said: said.message.content,
      shown: [shown.system, shown.details.family, shown.capabilities.includes('completion')],
      running,
      deleted: deleted.status,
      left: await names(),
      unloaded: (await client.generate({ model: 'copy', keep_alive: 0 })).done_reason,
    }
  },

  async pulls(url) {
    const client = at(url)
    const steps = await collect(await client.pull({ model: 'far:1b', stream: true }))
    const said = await client.chat({ model: 'far:1b', messages: ask })
    return {
      statuses: [steps[0].status, steps.at(-1).status],
      completed: Math.max(...steps.map((step) => step.completed ?? 0)),
      said: said.message.content,
      missing: await refusal(() => client.pull({ model: 'nope' })),
    }
  },

  async errors(url) {
    const client = at(url)
    return {
      unknown: await refusal(() => client.chat({ model: 'nope', messages: ask })),
      unknown_streamed: await refusal(() => client.chat({ model: 'nope', messages: ask, stream: true })),
      wrong: await refusal(() => client.chat({ model, messages: ask, format: 'yaml' })),
      deleted: await refusal(() => client.delete({ model: 'nope' })),
    }
  },

  async aborted(url) {
    const stream = await at(url).chat({ model, messages: endless, stream: true })
    let seen = 0
    const told = await refusal(async () => {
      for await (const _ of stream) if (++seen === 3) stream.abort()
    })
    return { kind: told.kind, message: told.message, cut: await wasCut(url) }
  },

  async killed(url) {
    const stream = await at(url).chat({ model, messages: endless, stream: true })
    let told = false
    return await refusal(async () => {
      for await (const _ of stream) {
        if (!told) streaming()
        told = true
      }
    })
  },
})
