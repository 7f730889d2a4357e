// A page without a browser: chats of the AI SDK with the transport that `useChat` has, and control of the network.
import { randomUUID } from 'node:crypto'
import { connect, createServer } from 'node:net'

export class Client {
  #call
  #ai
  #proxies = []

  constructor(ai, version, { user, url, call }) {
    this.#ai = ai
    this.#call = call
    this.version = version
    this.user = user
    this.url = url
  }

  /** ai 5 has no approvals, so its pages send a header. */
  get hasApprovals() {
    return !this.version.startsWith('5')
  }

  get headers() {
    return { authorization: `Bearer ${this.user.token}`, ...(this.hasApprovals ? {} : { 'latchkey-ai-sdk': '5' }) }
  }

  get api() {
    return `${this.url}/api/${this.user.id}/ai-sdk/chat`
  }

  /** The scripted model server: see tests/browser/README.md. */
  model = {
    script: (...steps) => this.#call('script_model', steps),
    next: (count = 1) => this.#call('send_pieces', count),
    release: () => this.#call('release_model'),
    requests: () => this.#call('model_requests'),
  }

  /** Streams of turns in every order of events, each with the message that the history has of it. */
  generatedLogs = () => this.#call('generated_logs', this.hasApprovals)

  /** Logs of turns that wait: the first stream of a page, and its decisions before each of the others. */
  waitingLogs = () => this.#call('waiting_logs')

  /** The answer to a request with decisions, if the log has `end` events. */
  continueStream = (number, end, body) => this.#call('continue_stream', number, end, body)

  service = { kill: () => this.#call('kill_service'), start: () => this.#call('start_service') }

  /** A chat as `useChat` makes it. `posts` counts its requests, `toolCalls` the tools that it was asked to run. */
  chat({ id = randomUUID(), messages = [], api = this.api, token = this.user.token, ...transport } = {}) {
    const { AbstractChat, DefaultChatTransport, lastAssistantMessageIsCompleteWithToolCalls } = this.#ai
    const { lastAssistantMessageIsCompleteWithApprovalResponses: isDecided = () => false } = this.#ai
    const log = { posts: 0, toolCalls: [], data: [], finished: [] }
    class Chat extends AbstractChat {}
    const chat = new Chat({
      id,
      state: new State(messages),
      transport: new DefaultChatTransport({
        api,
        headers: () => ({ ...this.headers, authorization: `Bearer ${token}` }),
        fetch: (...request) => {
          log.posts += request[1]?.method === 'POST'
          return fetch(...request)
        },
        ...transport,
      }),
      generateId: () => `m-${randomUUID().slice(0, 8)}`,
      sendAutomaticallyWhen: state => lastAssistantMessageIsCompleteWithToolCalls(state) || isDecided(state),
      onToolCall: ({ toolCall }) => void log.toolCalls.push(toolCall),
      onData: data => void log.data.push(data),
      onFinish: event => void log.finished.push(event),
    })
    return Object.assign(chat, { log })
  }

  /** The chat as a page has it that was loaded now. */
  async reloaded(id) {
    const { messages } = await this.load(id)
    return this.chat({ id, messages })
  }

  /** What the page loads: `{id, messages, activeStreamId}`. */
  load = id => this.rest('GET', `ai-sdk/chat/${encodeURIComponent(id)}`)

  /** Call the API of the service. `path` follows `/api/{user_id}/`. */
  async rest(method, path, body) {
    const response = await fetch(`${this.url}/api/${this.user.id}/${path}`, {
      method,
      headers: { ...this.headers, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return response.json()
  }

  /** An address of the API behind a proxy whose `cut` closes all its connections. */
  async proxy() {
    const sockets = new Set()
    const { hostname, port } = new URL(this.url)
    const server = createServer(client => {
      const upstream = connect(Number(port), hostname)
      for (const socket of [client, upstream]) {
        sockets.add(socket)
        socket.on('error', () => {})
      }
      client.pipe(upstream).pipe(client)
    })
    await new Promise(resolve => server.listen(0, hostname, resolve))
    const cut = () => sockets.forEach(socket => socket.destroy())
    this.#proxies.push({ server, cut })
    return { api: this.api.replace(port, server.address().port), cut }
  }

  close() {
    for (const { server, cut } of this.#proxies) {
      cut()
      server.close()
    }
  }
}

class State {
  status = 'ready'
  error = undefined
  constructor(messages) {
    this.messages = messages
  }
  pushMessage = message => void (this.messages = [...this.messages, message])
  popMessage = () => void (this.messages = this.messages.slice(0, -1))
  replaceMessage = (index, message) => void (this.messages = this.messages.with(index, structuredClone(message)))
  snapshot = value => structuredClone(value)
}

export const textsOf = message => message.parts.filter(part => part.type === 'text').map(part => part.text)
export const textOf = message => textsOf(message).join('|')
/** As JSON has it: without members that are undefined. */
export const plain = value => JSON.parse(JSON.stringify(value))

/** Wait until `condition` returns something true, and return that. */
export async function until(condition, timeoutMs = 10_000) {
  for (const end = Date.now() + timeoutMs; ; ) {
    const value = await condition()
    if (value) return value
    if (Date.now() > end) throw new Error(`Timeout: ${condition}`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}

/** Wait until the last message shows this text. */
export const shows = (chat, text) =>
  until(() => chat.lastMessage?.role === 'assistant' && textOf(chat.lastMessage).trim() === text).catch(() => {
    throw new Error(`Expected ${JSON.stringify(text)}: ${JSON.stringify(chat.messages)} ${chat.status} ${chat.error}`)
  })
