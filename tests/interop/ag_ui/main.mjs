// Runs scenarios with AG-UI clients for the tests. Each line of standard input is a scenario to run, each line of
// standard output is its result, or a call that the tests must answer.
import { createInterface } from 'node:readline'
import { runScenario } from './scenario.mjs'

const warnings = []
for (const level of ['log', 'info', 'warn', 'error', 'debug']) {
  console[level] = (...parts) => {
    process.stderr.write(`${parts.map(String).join(' ')}\n`)
    if (level === 'warn') warnings.push(parts.map(String).join(' '))
  }
}
// HttpAgent does not handle the rejection of a broken stream's `cancel`.
process.on('unhandledRejection', error => process.stderr.write(`unhandled: ${error}\n`))

const send = message => process.stdout.write(`${JSON.stringify(message)}\n`)
const calls = new Map()
const call = (method, ...args) =>
  new Promise((resolve, reject) => {
    const id = `${method} ${calls.size}`
    calls.set(id, { resolve, reject })
    send({ call: method, id, args })
  })

send({ ready: true })
for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line)
  if (message.answers) {
    const { resolve, reject } = calls.get(message.answers)
    if (message.error) reject(new Error(message.error))
    else resolve(message.value)
  } else {
    warnings.length = 0
    runScenario({ ...message, warnings }, call).then(send)
  }
}
process.exit()
