import { useChat } from '@ai-sdk/react'
import { DefaultChatTransport, type UIMessage } from 'ai'

const api = `${import.meta.env.VITE_LATCHKEY}/ai-sdk/chat` // http://127.0.0.1:8000/api/me
const headers = { Authorization: `Bearer ${import.meta.env.VITE_TOKEN}` }
const transport = new DefaultChatTransport({ api, headers })
const id: string = (localStorage.chat ??= crypto.randomUUID())
const load = async (): Promise<UIMessage[]> => (await (await fetch(`${api}/${id}`, { headers })).json()).messages
const messages = await load()

export function Chat() {
  const chat = useChat({ id, messages, transport, resume: true, onFinish: end => void (end.isDisconnect && recover(end.messages)) })
  const recover = (shown: UIMessage[]): unknown => load().then(stored => { // goes on with the turn, or sends what did not arrive
    const last = shown.findLast(({ role }) => role === 'user')
    chat.setMessages(stored)
    return !last || stored.some(({ id }) => id === last.id) ? chat.resumeStream() : chat.sendMessage(last)
  }).catch(() => setTimeout(recover, 1000, shown))
  return <form action={data => void chat.sendMessage({ text: String(data.get('text')) })}>
    {chat.messages.map(({ id, parts }) => <p key={id}>{parts.map(part =>
      part.type === 'text' ? part.text : part.type.startsWith('tool-') ? `[${part.type.slice(5)}] ` : '')}</p>)}
    <input name="text" aria-label="Message" /> <button>Send</button> <i>{chat.error?.message}</i>
  </form>
}
