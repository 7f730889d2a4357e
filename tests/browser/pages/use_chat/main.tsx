// A chat with `useChat` under StrictMode, with each release of the AI SDK: `version` is 7, 6 or 5.
import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'
import * as ai7 from 'ai'
import * as ai6 from 'ai-6'
import * as ai5 from 'ai-5'
import * as react7 from '@ai-sdk/react'
import * as react6 from '@ai-sdk/react-3'
import * as react5 from '@ai-sdk/react-2'

type Settings = { url: string; userId: string; token: string; chat: string; version?: 5 | 6 | 7; assistant?: string }
type Part = { type: string; text?: string; state?: string; errorText?: string; approval?: { id: string } }
type Message = { id: string; role: string; parts: Part[] }

const { url, userId, token, chat: id, version = 7, assistant } = (window as unknown as { latchkey: Settings }).latchkey
const { useChat } = { 7: react7, 6: react6, 5: react5 }[version] as typeof react7
const { DefaultChatTransport, ...ai } = { 7: ai7, 6: ai6, 5: ai5 }[version] as typeof ai7

const api = `${url}/api/${userId}/ai-sdk/chat`
const headers = { Authorization: `Bearer ${token}`, ...(version === 5 && { 'Latchkey-AI-SDK': '5' }) }
const transport = new DefaultChatTransport({ api, headers, body: { assistant } })
const load = async () => (await (await fetch(`${api}/${id}`, { headers })).json()).messages
const stored = await load()

function Chat() {
  const heal = (): void =>
    void load().then(chat.setMessages).then(() => chat.resumeStream()).catch(() => setTimeout(heal, 500))
  const onFinish = ({ isDisconnect }: { isDisconnect?: boolean }) => void (isDisconnect && heal())
  const sendAutomaticallyWhen = ai.lastAssistantMessageIsCompleteWithApprovalResponses
  const chat = useChat({ id, messages: stored, transport, resume: true, onFinish, sendAutomaticallyWhen })
  const stop = () => (chat.stop(), fetch(`${api}/${id}/stop`, { method: 'POST', headers }))
  const last = chat.messages.at(-1) as Message | undefined
  const questions = last?.parts.filter(({ state }) => state === 'approval-requested') ?? []
  return (
    <form action={data => void chat.sendMessage({ text: String(data.get('text')) })}>
      <ol>
        {(chat.messages as Message[]).map(message => (
          <li key={message.id}>
            {message.parts.map(shown).join('')}
            {message.role === 'user' && (
              <button type="button" onClick={() => void chat.sendMessage({ text: 'Better', messageId: message.id })}>
                Edit
              </button>
            )}
          </li>
        ))}
      </ol>
      {questions.flatMap(({ approval }) => [true, false].map(approved => (
        <button
          key={`${approval!.id} ${approved}`}
          type="button"
          onClick={() => void chat.addToolApprovalResponse({ id: approval!.id, approved })}
        >
          {approved ? 'Approve' : 'Decline'}
        </button>
      )))}
      <input name="text" aria-label="Message" /> <button>Send</button>
      <button type="button" onClick={() => void stop()}>Stop</button>
      <button type="button" onClick={() => void chat.regenerate()}>Regenerate</button>
      <p id="log">{(chat.messages as Message[]).map(message => message.parts.map(shown).join('')).join(' | ')}</p>
      <p id="answer">{last?.role === 'assistant' && last.parts.map(shown).join('')}</p>
      <p id="status">{chat.status}</p>
      <p id="error">{chat.error?.message}</p>
    </form>
  )
}

const shown = ({ type, text, errorText }: Part) =>
  type === 'text' ? text : type.startsWith('tool-') ? `[${type.slice(5)}${errorText ? `: ${errorText}` : ''}] ` : ''

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Chat />
  </StrictMode>,
)
