// Runs scenarios in Chromium for the tests. Each line of standard input is a scenario to run, each line of standard
// output is its result, a call that the tests must answer, or once, at the start, the origin of the pages.
import { createInterface } from 'node:readline'
import { chromium } from 'playwright-core'
import { servePages } from './pages.mjs'
import { runScenario } from './scenario.mjs'

const [executablePath, pagePort, outputFolder] = process.argv.slice(2)
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--no-first-run']

console.log = console.error // standard output is for messages to the tests
const send = message => process.stdout.write(`${JSON.stringify(message)}\n`)

const calls = new Map()
const call = (method, ...args) =>
  new Promise((resolve, reject) => {
    const id = `${method} ${calls.size}`
    calls.set(id, { resolve, reject })
    send({ call: method, id, args })
  })

const browser = await chromium.launch({ executablePath, args: FLAGS }) // in a new profile folder
const origin = await servePages(Number(pagePort), page => call('install_page', page))
send({ origin })

for await (const line of createInterface({ input: process.stdin })) {
  const message = JSON.parse(line)
  if (message.answers) {
    const { resolve, reject } = calls.get(message.answers)
    if (message.error) reject(new Error(message.error))
    else resolve(message.value)
  } else {
    runScenario(browser, { ...message, origin, outputFolder }, call).then(send)
  }
}
await browser.close()
process.exit()
