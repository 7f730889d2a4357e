// A chat with our own TypeScript client: it resumes by itself, and goes on after a reload of the page.
import { createClient, type StreamedEvent, textAfter } from '../../../../clients/typescript/src/index.js'

type Settings = { url: string; token: string }

const { url, token } = (window as unknown as { latchkey: Settings }).latchkey
const client = createClient({ baseUrl: url, token })
const root = document.getElementById('root')!
root.innerHTML =
  '<form><input aria-label="Message"><button>Send</button></form><p id="tools"></p><p id="answer"></p><p id="status">ready</p>'
const [input, tools, answer, status] = ['input', '#tools', '#answer', '#status'].map(name => root.querySelector(name)!)

root.querySelector('form')!.onsubmit = event => {
  event.preventDefault()
  void show(client.stream((input as HTMLInputElement).value))
}
const running = sessionStorage.getItem('turn')
if (running) void show(client.follow(running))

async function show(events: AsyncIterable<StreamedEvent>) {
  answer.textContent = tools.textContent = ''
  for await (const event of events) {
    if (event.event === 'turn.started') sessionStorage.setItem('turn', event.data.turn_id)
    if (event.event === 'tool_call.completed') tools.textContent += `${event.data.name} `
    answer.textContent = textAfter(answer.textContent ?? '', event)
    status.textContent = event.event
  }
}
