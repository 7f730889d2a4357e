// A chat over the REST API with `fetch` alone: streams a turn, and resumes it after a lost connection and a reload.
type Settings = { url: string; userId: string; token: string; turn?: string }
type Data = { turn_id: string; seq: number; text?: string; name?: string; detail?: string; length?: number }

const { url, userId, token, turn } = (window as unknown as { latchkey: Settings }).latchkey
const api = `${url}/api/${userId}`
const root = document.getElementById('root')!
root.innerHTML =
  '<form><input aria-label="Message"><button>Send</button></form><p id="tools"></p><p id="answer"></p><p id="status">ready</p>'
const [input, tools, answer, status] = ['input', '#tools', '#answer', '#status'].map(name => root.querySelector(name)!)

root.querySelector('form')!.onsubmit = event => {
  event.preventDefault()
  const body = JSON.stringify({ message: (input as HTMLInputElement).value })
  void follow({ path: 'chat', method: 'POST', body })
}
const running = sessionStorage.getItem('turn') ?? turn
if (running) void follow({ path: `turns/${running}/events`, method: 'GET' })

/** Show the events of a turn until its last one, or until it waits for the user. A broken stream is resumed behind the last event that arrived. */
async function follow(first: { path: string; method: string; body?: string }) {
  status.textContent = 'streaming'
  answer.textContent = tools.textContent = ''
  let request = first
  let seq = 0
  let last = ''
  for (;;) {
    try {
      const headers: Record<string, string> = { authorization: `Bearer ${token}`, accept: 'text/event-stream' }
      if (request.body) headers['content-type'] = 'application/json'
      if (seq) headers['last-event-id'] = String(seq)
      const response = await fetch(`${api}/${request.path}`, { method: request.method, body: request.body, headers })
      if (!response.ok) return show('failed', (await response.json()).detail)
      for await (const [name, data] of events(response)) {
        ;[seq, last] = [data.seq, name]
        request = { path: `turns/${data.turn_id}/events`, method: 'GET' }
        sessionStorage.setItem('turn', data.turn_id)
        if (name === 'message.delta') answer.textContent += data.text!
        if (name === 'tool_call.completed') tools.textContent += `${data.name} `
        if (name === 'message.withdrawn') answer.textContent = [...answer.textContent!].slice(0, data.length).join('')
        if (/^turn\.(completed|failed|cancelled|interrupted)$/.test(name)) return show(name.slice('turn.'.length), data.detail)
      }
      if (last === 'turn.waiting') return show('waiting')
    } catch {
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

function show(outcome: string, detail = '') {
  sessionStorage.removeItem('turn')
  status.textContent = `${outcome} ${detail}`.trim()
}

async function* events(response: Response): AsyncGenerator<[string, Data]> {
  let buffer = ''
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const blocks = (buffer + value).split('\n\n')
    buffer = blocks.pop()!
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split('\n').map(line => line.split(/: (.*)/s).slice(0, 2)))
      if (fields.data) yield [fields.event, JSON.parse(fields.data)]
    }
  }
}
