// Runs checks for the tests. Each line of standard input is a check to run, or the answer to a call; each line of
// standard output is the result of the check, or a call that the tests must answer.
import { createInterface } from 'node:readline'
import * as checks from './checks.mjs'
import { Client } from './client.mjs'

const TIMEOUT_MS = 30_000
const PACKAGES = { '7': 'ai', '6': 'ai-6', '5.0.277': 'ai-5', '5.0.14': 'ai-5-0-14' }

console.log = console.error // standard output is for messages to the tests
const send = message => process.stdout.write(`${JSON.stringify(message)}\n`)

const calls = new Map()
const call = (method, ...args) =>
  new Promise((resolve, reject) => {
    const id = `${method} ${calls.size}`
    calls.set(id, { resolve, reject })
    send({ call: method, id, args })
  })

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line)
  if (message.answers) {
    const { resolve, reject } = calls.get(message.answers)
    if (message.error) reject(new Error(message.error))
    else resolve(message.value)
  } else {
    run(message).then(send)
  }
}
process.exit()

async function run({ module: version, name, user, url }) {
  const client = new Client(await import(PACKAGES[version]), version, { user, url, call })
  const timeout = new Promise((_, reject) =>
    setTimeout(() => reject(new Error(`The check took more than ${TIMEOUT_MS} ms`)), TIMEOUT_MS).unref())
  try {
    await Promise.race([checks[name](client), timeout])
    return { result: null }
  } catch (error) {
    return { failure: error.stack }
  } finally {
    client.close()
  }
}
