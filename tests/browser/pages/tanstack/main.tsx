// A chat with `useChat` of TanStack AI under StrictMode. The service has the messages: the page keeps the thread's id only.
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import { fetchServerSentEvents, useChat } from '@tanstack/ai-react'

type Settings = { url: string; userId: string; token: string; chat: string; assistant?: string }
type Part = { type: string; content?: unknown; name?: string; state?: string; approval?: { id: string } }

const { url, userId, token, chat: threadId, assistant } = (window as unknown as { latchkey: Settings }).latchkey
const api = `${url}/api/${userId}`
const headers = { Authorization: `Bearer ${token}` }
const connection = fetchServerSentEvents(`${api}/ag-ui`, { headers, body: { assistant } })

function Chat() {
  const chat = useChat({ connection, threadId, persistence: true })
  const last = chat.messages.at(-1)
  const questions = (last?.parts ?? []).filter((part: Part) => part.state === 'approval-requested') as Part[]
  const edit = (place: number) => {
    const { id } = chat.messages[place]!
    chat.setMessages(chat.messages.slice(0, place))
    void chat.append({ id, role: 'user', parts: [{ type: 'text', content: 'Better' }] })
  }
  return (
    <form action={data => void chat.sendMessage(String(data.get('text')))}>
      <ol>
        {chat.messages.map(({ id, role, parts }, place) => (
          <li key={id}>
            {parts.map(shown).join('')}
            {role === 'user' && <button type="button" onClick={() => edit(place)}>Edit</button>}
          </li>
        ))}
      </ol>
      <input name="text" aria-label="Message" /> <button>Send</button>
      <button type="button" onClick={() => chat.stop()}>Stop</button>
      <button type="button" onClick={() => void chat.reload()}>Regenerate</button>
      {questions.flatMap(({ approval }) => [true, false].map(approved => (
        <button
          key={`${approval!.id} ${approved}`}
          type="button"
          onClick={() => void chat.addToolApprovalResponse({ id: approval!.id, approved })}
        >
          {approved ? 'Approve' : 'Decline'}
        </button>
      )))}
      <p id="log">{chat.messages.map(({ parts }) => parts.map(shown).join('')).join(' | ')}</p>
      <p id="answer">{last?.role === 'assistant' && last.parts.map(shown).join('')}</p>
      <p id="status">{chat.isLoading ? 'streaming' : 'ready'}</p>
      <p id="error">{chat.error?.message}</p>
    </form>
  )
}

const shown = ({ type, content, name }: Part) => (type === 'text' ? content : type === 'tool-call' ? `[${name}]` : '')

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
)
