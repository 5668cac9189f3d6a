// Runs the exchanges named on the command line, `node client.mjs URL name…`, and prints what came of each as one JSON object.

import { readFileSync } from 'node:fs'

export const facts = JSON.parse(readFileSync(new URL('facts.json', import.meta.url), 'utf8'))
export const model = 'selftest'
export const ask = [{ role: 'user', content: 'hello' }]
export const endless = [{ role: 'user', content: facts.endless }]
export const city = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
export const weather = { name: facts.tool, description: 'the weather of a city', parameters: city }

export async function run(exchanges) {
  const [url, ...names] = process.argv.slice(2)
  const told = {}
  for (const name of names) told[name] = await exchanges[name](url)
  console.log(JSON.stringify(told))
}

export async function collect(stream) {
  const parts = []
  for await (const part of stream) parts.push(part)
  return parts
}

// What a call was refused with: the client's own class and what it carries.
export async function refusal(call) {
  try {
    await call()
  } catch (error) {
    const { status = null, code = null, param = null } = error
    return { kind: error.constructor.name, message: error.message, status: error.status_code ?? status, code, param }
  }
  throw new Error('nothing was refused')
}

// Tells the test that a stream runs, so that it may do something to the server.
export const streaming = () => console.log('streaming')

// Whether the only generation of a fresh server was cut, once no slot works any more; one that ran to its end has no next token.
export async function wasCut(url) {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const slots = await (await fetch(`${url}/slots?model=${model}`)).json()
    if (slots.every((slot) => !slot.is_processing)) return slots.some((slot) => slot.next_token?.[0].has_next_token)
  }
  throw new Error('a slot works on')
}
