// A chat with OpenAI's SDK: streams a response, resumes it after a lost connection and a reload, stops it, and replaces the last one.
import OpenAI from 'openai'

type Settings = { url: string; userId: string; token: string; chat: string }
type Events = PromiseLike<AsyncIterable<OpenAI.Responses.ResponseStreamEvent>>

const { url, userId, token, chat } = (window as unknown as { latchkey: Settings }).latchkey
const client = new OpenAI({ baseURL: `${url}/api/${userId}/openai/v1`, apiKey: token, dangerouslyAllowBrowser: true })
const responses: string[] = JSON.parse(localStorage.getItem(chat) ?? '[]') // the ids, newest last

const root = document.getElementById('root')!
root.innerHTML = `<form><input aria-label="Message"><button>Send</button> <button type="button">Replace</button>
  <button type="button">Stop</button></form><p id="log"></p><p id="tools"></p><p id="answer"></p><p id="status">ready</p>`
const [input, log, tools, answer, status] = ['input', '#log', '#tools', '#answer', '#status'].map(name => root.querySelector(name)!)
const [send, replace, stop] = root.querySelectorAll('button')

send.onclick = event => {
  event.preventDefault()
  void say()
}
replace.onclick = () => {
  responses.pop()
  void say()
}
stop.onclick = () => void client.responses.cancel(responses.at(-1)!)
void load()

function say() {
  const text = (input as HTMLInputElement).value
  const request = { model: 'latchkey', input: text, previous_response_id: responses.at(-1) ?? null, stream: true } as const
  return follow(client.responses.create(request))
}

async function load() {
  const id = responses.at(-1)
  if (!id) return
  const { status } = await client.responses.retrieve(id)
  await showLog()
  if (status === 'in_progress') await follow(client.responses.retrieve(id, { stream: true }), id)
}

/** Show the events of a response until its last one. A broken stream is resumed behind the last event that arrived. */
async function follow(events: Events, id = '') {
  status.textContent = 'streaming'
  answer.textContent = tools.textContent = ''
  let number = -1
  const texts = new Map<string, string>() // by item: that of a step that broke off ends with what remains of it
  const show = (item: string, text: string) => {
    texts.set(item, text)
    answer.textContent = [...texts.values()].join('')
  }
  for (;;) {
    try {
      for await (const event of await events) {
        number = event.sequence_number
        if (event.type === 'response.created' && !id) remember((id = event.response.id))
        if (event.type === 'response.output_text.delta') show(event.item_id, (texts.get(event.item_id) ?? '') + event.delta)
        if (event.type === 'response.output_text.done') show(event.item_id, event.text)
        if (event.type === 'response.output_item.done' && event.item.type === 'mcp_call') tools.textContent += event.item.name
        if (event.type === 'response.completed' || event.type === 'response.failed' || event.type === 'response.incomplete') {
          await showLog()
          status.textContent = `${event.response.status} ${event.response.error?.message ?? ''}`.trim()
          return
        }
      }
    } catch (error) {
      if (!id || (error instanceof OpenAI.APIError && error.status)) {
        status.textContent = `refused ${(error as Error).message}`
        return
      }
      await new Promise(resolve => setTimeout(resolve, 100))
    }
    events = client.responses.retrieve(id, { stream: true, starting_after: number })
  }
}

function remember(id: string) {
  responses.push(id)
  localStorage.setItem(chat, JSON.stringify(responses))
}

async function showLog() {
  const { conversation } = await client.responses.retrieve(responses.at(-1)!)
  const texts = []
  for await (const item of client.conversations.items.list(conversation!.id, { order: 'asc' })) {
    if (item.type === 'message') texts.push(item.content.map(part => ('text' in part ? part.text : '')).join(''))
    if (item.type === 'mcp_call') texts.push(`[${item.name}]`)
  }
  log.textContent = texts.map(text => text.trim()).join(' | ')
}
