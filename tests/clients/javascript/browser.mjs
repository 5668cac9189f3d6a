// What a browser asks before it lets a page call another origin, and how the clients' fetch keeps its connections.

import diagnostics from 'node:diagnostics_channel'
import http from 'node:http'
import Anthropic from '@anthropic-ai/sdk'
import { Ollama } from 'ollama'
import OpenAI from 'openai'
import { ask, collect, model, refusal, run } from './harness.mjs'

const origin = 'http://localhost:3000'
// Headers that a page may send unasked; the first line is set by the browser itself. Source: the Fetch standard.
const unasked = new Set([
  'host', 'connection', 'content-length', 'user-agent', 'accept-encoding', 'origin', 'referer',
  'accept', 'accept-language', 'content-language',
])

// A fetch with the rules of a browser: a preflight first, then the call, and only if the server allows each header of it.
async function careful(input, init = {}) {
  const request = new Request(input, { ...init, ...(init.body ? { duplex: 'half' } : {}) })
  const named = [...request.headers.keys()].filter((name) => !unasked.has(name)).sort()
  const preflight = await fetch(request.url, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': request.method,
      'access-control-request-headers': named.join(','),
    },
  })
  const list = (name) => (preflight.headers.get(name) ?? '').split(',').map((one) => one.trim().toLowerCase())
  if (!preflight.ok || preflight.headers.get('access-control-allow-origin') !== origin)
    throw new Error(`the preflight of ${request.url} was refused: ${preflight.status}`)
  const missing = named.filter((name) => !list('access-control-allow-headers').includes(name))
  if (missing.length || !list('access-control-allow-methods').includes(request.method.toLowerCase()))
    throw new Error(`a browser would not send ${request.method} with ${missing}`)
  const headers = new Headers(request.headers)
  headers.set('origin', origin)
  const answer = await fetch(request.url, { ...init, headers })
  if (answer.headers.get('access-control-allow-origin') !== origin) throw new Error('a page could not read the answer')
  const exposed = (answer.headers.get('access-control-expose-headers') ?? '').toLowerCase().split(/, */)
  const readable = [...answer.headers].filter(([name]) => exposed.includes(name) || name.startsWith('content-'))
  return new Response(answer.body, { status: answer.status, headers: readable })
}

function post(agent, url, body) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { agent, method: 'POST', headers: { 'content-type': 'application/json' } })
    request.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode)))
    request.on('error', reject).end(JSON.stringify(body))
  })
}

const sdk = { apiKey: 'unused', maxRetries: 0, dangerouslyAllowBrowser: true, fetch: careful }

await run({
  async pages(url) {
    const ollama = new Ollama({ host: url, fetch: careful })
    const openai = new OpenAI({ baseURL: `${url}/v1`, ...sdk })
    const anthropic = new Anthropic({ baseURL: url, ...sdk })
    const message = await anthropic.messages.create({ model, max_tokens: 100, messages: ask })
    const beta = await anthropic.beta.messages.create({ model, max_tokens: 100, messages: ask, betas: ['any-2026-01-01'] })
    const chat = await openai.chat.completions.create({ model, messages: ask })
    await ollama.create({ model: 'paged', from: 'tinychat' })
    return {
      ollama: (await ollama.chat({ model, messages: ask })).message.content,
      deleted: (await ollama.delete({ model: 'paged' })).status,
      openai: chat.choices[0].message.content,
      listed: (await collect(openai.models.list())).length,
      anthropic: [message.content[0].text, beta.content[0].text],
      identified: [Boolean(chat._request_id), Boolean(message._request_id)],
      unknown: (await refusal(() => openai.chat.completions.create({ model: 'nope', messages: ask }))).kind,
    }
  },

  async stranger(url) {
    const answer = await fetch(`${url}/api/tags`, { headers: { origin: 'https://evil.example' } })
    return [answer.status, answer.headers.get('access-control-allow-origin')]
  },

  // fetch gives up a connection whose answer overtakes the end of its own sending, and opens one more while one is not yet
  // marked as free: what it kept is seen on requests without a body, and exactly with Node's plain client.
  async connections(url) {
    let connected = 0
    diagnostics.subscribe('undici:client:connected', () => (connected += 1))
    for (let round = 0; round < 12; round += 1) await (await fetch(`${url}/v1/models`)).text()
    const fetched = connected
    let kept = 0
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
    const connect = agent.createConnection.bind(agent)
    agent.createConnection = (...given) => (kept += 1) && connect(...given)
    const statuses = []
    for (const wishes of [{}, { stream: true }, { model: 'nope' }, {}])
      statuses.push(await post(agent, `${url}/v1/chat/completions`, { model, messages: ask, ...wishes }))
    agent.destroy()
    const { chat } = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'unused', maxRetries: 0 })
    const many = await Promise.all(Array.from({ length: 16 }, () => chat.completions.create({ model, messages: ask })))
    return { fetched, kept, statuses, many: [...new Set(many.map((one) => one.choices[0].message.content))] }
  },
})
