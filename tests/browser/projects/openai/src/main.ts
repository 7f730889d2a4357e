import OpenAI from 'openai'

const client = new OpenAI({
  baseURL: `${import.meta.env.VITE_LATCHKEY}/openai/v1`, // http://127.0.0.1:8000/api/me
  apiKey: import.meta.env.VITE_TOKEN, // the token of the user, not a key of OpenAI
  dangerouslyAllowBrowser: true,
})
const conversation: string = (localStorage.conversation ??= (await client.conversations.create()).id)
const [log, form, input] = [document.querySelector('pre')!, document.querySelector('form')!, document.querySelector('input')!]

async function follow(stream: PromiseLike<AsyncIterable<OpenAI.Responses.ResponseStreamEvent>>) {
  for await (const event of await stream) {
    if (event.type === 'response.created') localStorage.response = event.response.id
    if (event.type === 'response.output_text.delta') log.append(event.delta)
    if (event.type === 'response.output_item.done') log.append(event.item.type === 'mcp_call' ? `[${event.item.name}] ` : '')
  }
  delete localStorage.response
}

const line = (item: OpenAI.Conversations.ConversationItem) =>
  item.type === 'message' ? item.content.map(part => ('text' in part ? part.text : '')).join('')
  : item.type === 'mcp_call' ? `[${item.name}]` : ''

async function show() { // the stored conversation, and the answer that is being made
  const { data } = await client.conversations.items.list(conversation, { order: 'asc', limit: 100 })
  log.textContent = data.map(line).join('\n') + '\n'
  form.hidden = false
  if (localStorage.response) await follow(client.responses.retrieve(localStorage.response, { stream: true }))
}
const keepShowing = () => void show().catch(() => setTimeout(keepShowing, 1000))

form.onsubmit = event => {
  event.preventDefault()
  log.append(`\n${input.value}\n`)
  const request = { model: 'latchkey', conversation, input: input.value, stream: true } as const
  follow(client.responses.create(request)).catch(keepShowing)
}
keepShowing()
