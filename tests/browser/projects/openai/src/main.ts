import OpenAI from 'openai'

const client = new OpenAI({
  baseURL: `${import.meta.env.VITE_LATCHKEY}/openai/v1`, // http://127.0.0.1:8000/api/me
  apiKey: import.meta.env.VITE_TOKEN, // the token of the user, not a key of OpenAI
  dangerouslyAllowBrowser: true,
})
const conversation: string = (localStorage.conversation ??= (await client.conversations.create()).id)
const model = new URLSearchParams(location.search).get('model') ?? 'latchkey'
const [log, form, input] = [document.querySelector('pre')!, document.querySelector('form')!, document.querySelector('input')!]

async function follow(stream: PromiseLike<AsyncIterable<OpenAI.Responses.ResponseStreamEvent>>) {
  const texts = new Map<string, Text>() // the texts of the answer, by the ids of their items
  const textOf = (id: string) => texts.get(id) ?? texts.set(id, log.appendChild(new Text())).get(id)!
  for await (const event of await stream) {
    if (event.type === 'response.created') localStorage.response = event.response.id
    if (event.type === 'response.output_text.delta') textOf(event.item_id).data += event.delta
    if (event.type === 'response.output_text.done') textOf(event.item_id).data = event.text // shorter if a part was withdrawn
    if (event.type === 'response.output_item.done' && event.item.type === 'mcp_call' && event.item.status !== 'incomplete')
      log.append(line(event.item))
    if (event.type === 'response.completed') {
      const input = await decide(event.response.output)
      if (input.length) return follow(client.responses.create({ model, input, stream: true }))
    }
  }
  delete localStorage.response
}

async function decide(items: OpenAI.Responses.ResponseOutputItem[]) { // ask whether each tool may be called
  const decisions: OpenAI.Responses.ResponseInputItem.McpApprovalResponse[] = []
  for (const item of items) {
    if (item.type !== 'mcp_approval_request') continue
    const approve = await new Promise<boolean>(resolve => {
      const question = log.appendChild(document.createElement('span'))
      question.append(`${item.name} ${item.arguments}? `)
      for (const answer of ['Approve', 'Decline']) {
        const button = question.appendChild(document.createElement('button'))
        button.append(answer)
        button.onclick = () => { question.remove(); resolve(answer === 'Approve') }
      }
    })
    decisions.push({ type: 'mcp_approval_response', approval_request_id: item.id, approve })
  }
  return decisions
}

const line = (item: OpenAI.Conversations.ConversationItem) =>
  item.type === 'message' ? item.content.map(part => ('text' in part ? part.text : '')).join('')
  : item.type === 'mcp_call' ? `[${item.name}: ${item.status}] ` : ''

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
  const request = { model, conversation, input: input.value, stream: true } as const
  follow(client.responses.create(request)).catch(keepShowing)
}
keepShowing()
