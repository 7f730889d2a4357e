import { useChat } from '@ai-sdk/react'
import { DefaultChatTransport, isStaticToolUIPart, lastAssistantMessageIsCompleteWithApprovalResponses, type UIMessage } from 'ai'

const api = `${import.meta.env.VITE_LATCHKEY}/ai-sdk/chat` // http://127.0.0.1:8000/api/me
const headers = { Authorization: `Bearer ${import.meta.env.VITE_TOKEN}` }
const transport = new DefaultChatTransport({ api, headers, body: { assistant: 'careful' } })
const id: string = (localStorage.approvals ??= crypto.randomUUID())
const load = async (): Promise<UIMessage[]> => (await (await fetch(`${api}/${id}`, { headers })).json()).messages
const messages = await load()

export function Chat() {
  const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses
  const chat = useChat({ id, messages, transport, resume: true, sendAutomaticallyWhen, onFinish: end => void (end.isDisconnect && recover()) })
  const recover = (): unknown =>
    load().then(chat.setMessages).then(() => chat.resumeStream()).catch(() => setTimeout(recover, 1000))
  return <form action={data => void chat.sendMessage({ text: String(data.get('text')) })}>
    {chat.messages.map(({ id, parts }) => <p key={id}>{parts.map(part =>
      part.type === 'text' ? part.text : isStaticToolUIPart(part) && <span key={part.toolCallId}>
        [{part.type.slice(5)} {JSON.stringify(part.input)} {part.state}]{' '}
        {part.state === 'approval-requested' && id === chat.messages.at(-1)?.id && [true, false].map(approved =>
          <button key={`${approved}`} type="button" onClick={() => void chat.addToolApprovalResponse({ id: part.approval.id, approved })}>
            {approved ? 'Approve' : 'Decline'}
          </button>)}
      </span>)}</p>)}
    <input name="text" aria-label="Message" /> <button>Send</button> <i>{chat.error?.message}</i>
  </form>
}
