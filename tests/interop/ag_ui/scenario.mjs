// The parameters of a scenario: the service behind a proxy that can cut connections, the model, and the REST API.
import assert from 'node:assert/strict'
import { createServer, connect } from 'node:net'

const TIMEOUT_MS = 40_000

/** Run `MODULE.mjs`'s function NAME. Returns `{result}` or `{failure}`. */
export async function runScenario({ module, name, ...settings }, call) {
  const proxy = await cuttableProxy(settings.url)
  let timer
  try {
    const functions = await import(`./${module}.mjs`)
    const timeout = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`The scenario took more than ${TIMEOUT_MS} ms`)), TIMEOUT_MS)
    })
    const result = await Promise.race([functions[name](new Scenario(settings, proxy, call)), timeout])
    return { result: result ?? null }
  } catch (error) {
    return { failure: [error.stack ?? String(error), ...settings.warnings].join('\n') }
  } finally {
    clearTimeout(timer)
    proxy.close()
  }
}

export class Scenario {
  constructor({ user, url, warnings, ...settings }, proxy, call) {
    this.user = user
    this.settings = settings
    this.warnings = warnings
    this.proxy = proxy
    /** The address of the API of the user, through the proxy and without it. */
    this.base = `${proxy.url}/api/${user.id}`
    this.direct = `${url}/api/${user.id}`
    this.headers = { Authorization: `Bearer ${user.token}` }
    this.model = {
      script: (...steps) => call('script_model', steps),
      next: (count = 1) => call('send_pieces', count),
      release: () => call('release_model'),
      requests: () => call('model_requests'),
    }
    this.service = { kill: () => call('kill_service'), start: () => call('start_service') }
  }

  /** Call the REST API as the user. Returns the JSON; throws if it is a problem. */
  api = async (method, path, body) => {
    const response = await fetch(`${this.direct}/${path}`, {
      method,
      headers: { ...this.headers, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`)
    return text && JSON.parse(text)
  }

  /** The turns of the only conversation of the user, oldest first. */
  turns = async () => {
    const { items } = await this.api('GET', 'conversations')
    assert.equal(items.length, 1)
    return (await this.api('GET', `conversations/${items[0].id}/turns`)).items.reverse()
  }
}

/** Wait until `condition` returns something true, and return that. */
export async function until(condition, timeoutMs = 8_000) {
  for (const end = Date.now() + timeoutMs; ; ) {
    const value = await condition()
    if (value) return value
    if (Date.now() > end) throw new Error(`Timeout: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

export const plain = value => JSON.parse(JSON.stringify(value))

/** A TCP proxy whose `cut` breaks all connections; while `isDown`, it breaks new ones too. */
async function cuttableProxy(target) {
  const { hostname, port } = new URL(target)
  const sockets = new Set()
  const server = createServer(client => {
    if (proxy.isDown) return client.resetAndDestroy()
    const service = connect(Number(port), hostname)
    for (const [one, other] of [[client, service], [service, client]]) {
      sockets.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => (sockets.delete(one), other.destroy()))
      one.pipe(other)
    }
  })
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve))
  const proxy = {
    url: `http://127.0.0.1:${server.address().port}`,
    isDown: false,
    cut: () => sockets.forEach(socket => socket.resetAndDestroy()),
    close: () => (server.close(), sockets.forEach(socket => socket.destroy())),
  }
  return proxy
}
