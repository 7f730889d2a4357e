/** The messages of one conversation, as they are written. */
import { useChat } from '@ai-sdk/react'
import { useEffect, useRef, useState } from 'react'
import { refresh } from '../api'
import { hrefOf, navigate } from '../route'
import type { Conversation } from '../types'
import { Composer } from './Composer'
import { Empty } from './Empty'
import { MessageView } from './MessageView'
import { TurnFailure } from './TurnFailure'
import { callOf } from './messages'
import type { ChatMessage } from './messages'
import { useAnnouncements } from './useAnnouncements'
import { useRecovery } from './useRecovery'
import { createTransport, stopTurn } from './wire'
import type { History } from './wire'

const REDRAW_MS = 50
const NEAR_END_PX = 120
const STOP_PATIENCE_MS = 3000

export interface SendOptions {
  assistant?: string
  model?: string
  artifact_generation?: boolean
}

export function Thread(props: {
  name: string
  conversation: Conversation | undefined
  isNew: boolean
  initial: History
  onConversation: (id: string) => void
}) {
  const [transport] = useState(createTransport)
  const chat = useChat<ChatMessage>({
    id: props.name,
    messages: props.initial.messages,
    transport,
    resume: props.initial.activeStreamId !== null,
    throttle: REDRAW_MS,
  })
  const recovery = useRecovery(props.name, chat, props.conversation)
  const isBusy = chat.status === 'submitted' || chat.status === 'streaming'
  const end = useScrolledToEnd(chat.messages)
  const options = useRef<SendOptions>({})
  useAnnouncements(chat.status, chat.messages)
  useFreshResources(chat.status, chat.messages, props.onConversation)

  const send = (text: string, chosen: SendOptions) => {
    options.current = chosen
    if (props.isNew) navigate(hrefOf('chat', props.name))
    void chat.sendMessage({ text }, { body: chosen })
  }
  const stop = async () => {
    await stopTurn(props.name).catch(() => chat.stop())
    // The stream ends by itself. If it does not, because the turn had not begun, nothing is left to wait for.
    setTimeout(() => void chat.stop(), STOP_PATIENCE_MS)
  }
  return (
    <>
      <div className="thread" ref={end.container} onScroll={end.onScroll} tabIndex={0} role="region" aria-label="Messages">
        {chat.messages.length === 0 && <Empty />}
        <ol className="messages">
          {chat.messages.map((message, index) => (
            <li key={message.id}>
              <MessageView
                message={message}
                isLast={index === chat.messages.length - 1}
                isBusy={isBusy}
                onEdit={(text) => void chat.sendMessage({ text, messageId: message.id }, { body: options.current })}
                onRegenerate={() => void chat.regenerate({ messageId: message.id, body: options.current })}
              />
            </li>
          ))}
        </ol>
        {chat.status === 'submitted' && <p className="waiting">Waiting for the model…</p>}
        <TurnFailure
          chat={chat}
          recovery={recovery}
          onRetry={() => void chat.regenerate({ body: options.current })}
          onResend={(text, messageId) => void chat.sendMessage({ text, messageId }, { body: options.current })}
        />
      </div>
      <Composer name={props.name} isBusy={isBusy} canChoose={chat.messages.length === 0} onSend={send} onStop={() => void stop()} />
    </>
  )
}

/** Keep the end in view while it grows, unless the person has scrolled away from it. */
function useScrolledToEnd(messages: ChatMessage[]) {
  const container = useRef<HTMLDivElement>(null)
  const isAtEnd = useRef(true)
  useEffect(() => {
    if (isAtEnd.current && container.current) container.current.scrollTop = container.current.scrollHeight
  }, [messages])
  const onScroll = () => {
    const box = container.current
    if (box) isAtEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_END_PX
  }
  return { container, onScroll }
}

/** Read lists and the ledger again when a turn begins, calls a tool or ends. */
function useFreshResources(status: string, messages: ChatMessage[], onConversation: (id: string) => void): void {
  const last = messages.at(-1)
  const calls = last?.parts.map((part) => callOf(part)?.state ?? part.type).join() ?? ''
  const conversationId = messages.findLast((message) => message.metadata?.conversationId)?.metadata?.conversationId
  useEffect(() => {
    if (conversationId) onConversation(conversationId)
  }, [conversationId, onConversation])
  useEffect(() => {
    if (status !== 'submitted' && messages.length > 0) void refresh('')
  }, [status, calls, messages.length])
}
