import { useChat } from '@ai-sdk/react'
import { DefaultChatTransport } from 'ai'

const api = `${import.meta.env.VITE_LATCHKEY}/ai-sdk/chat` // http://127.0.0.1:8000/api/me
const headers = { Authorization: `Bearer ${import.meta.env.VITE_TOKEN}` }
const transport = new DefaultChatTransport({ api, headers })
const id: string = (localStorage.chat ??= crypto.randomUUID())
const load = async () => (await (await fetch(`${api}/${id}`, { headers })).json()).messages
const stored = await load()

export function Chat() {
  const onFinish = ({ isDisconnect }: { isDisconnect: boolean }) => void (isDisconnect && heal())
  const chat = useChat({ id, messages: stored, transport, resume: true, onFinish })
  const heal = () => load().then(chat.setMessages).then(() => chat.resumeStream()).catch(() => setTimeout(heal, 1000))
  return <form action={data => void chat.sendMessage({ text: String(data.get('text')) })}>
    {chat.messages.map(({ id, parts }) => <p key={id}>{parts.map(part =>
      part.type === 'text' ? part.text : part.type.startsWith('tool-') ? `[${part.type.slice(5)}] ` : '')}</p>)}
    <input name="text" aria-label="Message" /> <button>Send</button> <i>{chat.error?.message}</i>
  </form>
}
