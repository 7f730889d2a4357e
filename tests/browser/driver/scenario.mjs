// The parameters of a scenario: tabs, the service, the model, and the REST API.
import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'

const TIMEOUT_MS = 120_000
const ACTION_TIMEOUT_MS = 15_000

export class Scenario {
  #call
  #browserContext

  constructor(browserContext, call, { user, url, origin, ...settings }) {
    this.#browserContext = browserContext
    this.#call = call
    /** `{id, token}` of a new user. */
    this.user = user
    /** The address of the service. */
    this.url = url
    /** The origin of the pages. */
    this.origin = origin
    // Settings of a test of its own: the project under test, the path of a picture.
    Object.assign(this, settings)
    /** What tabs wrote to their consoles as errors, and exceptions that no code caught. The latter fail the scenario. */
    this.consoleErrors = []
    this.pageErrors = []
    browserContext.on('console', message => {
      if (message.type() === 'error') this.consoleErrors.push(message.text())
    })
    browserContext.on('weberror', error => this.pageErrors.push(String(error.error().stack ?? error.error())))
  }

  /** Open a page of `pages/` in a new tab. The page reads `window.latchkey`: `{url, userId, token, chat, …settings}`. */
  open = async (page, settings = {}) => {
    const { id, token } = this.user
    const values = { url: this.url, userId: id, token, chat: randomUUID(), ...settings }
    const tab = await this.#browserContext.newPage()
    await tab.addInitScript(values => (window.latchkey = values), values)
    const response = await tab.goto(`${this.origin}/${page}/`)
    if (!response.ok()) throw new Error(`The page cannot be bundled: ${await response.text()}`)
    return tab
  }

  /** Open any address in a new tab. */
  openUrl = async url => {
    const tab = await this.#browserContext.newPage()
    await tab.goto(url)
    return tab
  }

  /** Call the REST API as the user. `path` follows `/api/{user_id}/`. Returns the JSON; throws if it is a problem. */
  api = async (method, path, body) => {
    const response = await fetch(`${this.url}/api/${this.user.id}/${path}`, {
      method,
      headers: { authorization: `Bearer ${this.user.token}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text && JSON.parse(text)
  }

  /** The scripted model server. README.md describes the steps. */
  model = {
    script: (...steps) => this.#call('script_model', steps),
    /** Let a paced answer send the next pieces of its text. */
    next: (count = 1) => this.#call('send_pieces', count),
    /** Let paced answers go on to their ends. */
    release: () => this.#call('release_model'),
    /** The conversations that the model has received, one list of `[role, text]` for each request. */
    requests: () => this.#call('model_requests'),
  }

  service = {
    /** `kill -9`. */
    kill: () => this.#call('kill_service'),
    /** Start the service again, on the same port and database. */
    start: () => this.#call('start_service'),
  }
}

/** Wait until `condition` returns something true, and return that. */
export async function until(condition, timeoutMs = ACTION_TIMEOUT_MS) {
  for (const end = Date.now() + timeoutMs; ; ) {
    const value = await condition()
    if (value) return value
    if (Date.now() > end) throw new Error(`Timeout: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Wait until the text of an element, without white space around it, is `expected`, or matches it. */
export async function shows(tab, selector, expected) {
  let text
  const matches = async () => {
    text = (await tab.locator(selector).textContent()).trim()
    return expected instanceof RegExp ? expected.test(text) : text === expected
  }
  await until(matches).catch(() => {
    throw new Error(`${selector} shows ${JSON.stringify(text)}, not ${expected instanceof RegExp ? expected : JSON.stringify(expected)}`)
  })
}

/** Run the function NAME of a module of this folder's parent in a browser context of its own. Returns `{result}` or `{failure}`. */
export async function runScenario(browser, { module, name, outputFolder, contextOptions, ...settings }, call) {
  const browserContext = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...contextOptions })
  browserContext.setDefaultTimeout(ACTION_TIMEOUT_MS)
  browserContext.setDefaultNavigationTimeout(TIMEOUT_MS) // a page is bundled when it is first opened
  const scenario = new Scenario(browserContext, call, settings)
  let timer
  try {
    const functions = await import(`../${module}.mjs`)
    const timeout = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`The scenario took more than ${TIMEOUT_MS} ms`)), TIMEOUT_MS)
    })
    const result = await Promise.race([functions[name](scenario), timeout])
    if (scenario.pageErrors.length > 0) throw new Error('A page has thrown an exception that was not caught.')
    return { result: result ?? null }
  } catch (error) {
    return { failure: [error.stack, ...(await report(browserContext, scenario, outputFolder, `${module.replaceAll('/', '-')}-${name}`))].join('\n') }
  } finally {
    clearTimeout(timer)
    await browserContext.close()
  }
}

async function report(browserContext, { consoleErrors, pageErrors }, outputFolder, name) {
  await mkdir(outputFolder, { recursive: true })
  const lines = [...consoleErrors.map(text => `console: ${text}`), ...pageErrors.map(text => `uncaught: ${text}`)]
  for (const [index, tab] of browserContext.pages().entries()) {
    const path = `${outputFolder}/${name}-${index + 1}.png`
    await tab.screenshot({ path, timeout: 5_000 }).catch(() => {})
    lines.push(`tab ${index + 1}: ${tab.url()} ${path}`)
  }
  return lines
}
