/** The messages of one conversation, as they are written. */
import { useChat } from '@ai-sdk/react'
import type { UseChatHelpers } from '@ai-sdk/react'
import { useEffect, useRef, useState } from 'react'
import { refresh } from '../api'
import { hrefOf, navigate } from '../route'
import type { Conversation } from '../types'
import { Failure } from '../ui/parts'
import { Composer } from './Composer'
import { Empty } from './Empty'
import { MessageView } from './MessageView'
import { TurnFailure } from './TurnFailure'
import { callOf } from './messages'
import type { ChatMessage } from './messages'
import { useAnnouncements } from './useAnnouncements'
import { useRecovery } from './useRecovery'
import { createTransport, loadHistory, stopTurn, TURNS } from './wire'
import type { History } from './wire'

const REDRAW_MS = 50
const NEAR_END_PX = 120
const STOP_PATIENCE_MS = 3000
const REFRESH_MS = 100
const CHANGED_BY_TURNS = ['conversations', 'context-tokens', 'approvals']

export interface SendOptions {
  assistant?: string | undefined
  model?: string | undefined
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
    throttle: REDRAW_MS,
  })
  const recovery = useRecovery(chat, props)
  const isBusy = chat.status === 'submitted' || chat.status === 'streaming'
  const stop = useStop(chat, isBusy)
  const end = useScrolledToEnd(chat.messages)
  const options = useRef<SendOptions>({})
  useAnnouncements(chat.status, chat.messages)
  useFreshResources(chat.status, chat.messages, props.onConversation)

  const send = (text: string, chosen: SendOptions) => {
    options.current = chosen
    if (props.isNew) navigate(hrefOf('chat', props.name))
    void chat.sendMessage({ text }, { body: chosen })
  }
  const onDecided = () => {
    end.container.current?.focus()
    recovery.recover().catch(() => {})
  }
  return (
    <>
      <div className="thread" ref={end.container} onScroll={end.onScroll} tabIndex={0} role="region" aria-label="Messages">
        {chat.messages.length === 0 && <Empty />}
        <Earlier chat={chat} name={props.name} isBusy={isBusy} />
        <ol className="messages">
          {chat.messages.map((message, index) => (
            <li key={message.id}>
              <MessageView
                message={message}
                isLast={index === chat.messages.length - 1}
                isBusy={isBusy}
                onDecided={onDecided}
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
      <Composer
        isBusy={isBusy}
        assistant={chat.messages.length === 0 ? null : (props.conversation?.assistant ?? '')}
        onSend={send}
        onStop={stop}
      />
    </>
  )
}

/** Cancel the turn in the service. The stream then ends by itself; if it does not, the turn had not begun. */
function useStop(chat: UseChatHelpers<ChatMessage>, isBusy: boolean): () => void {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined)
  useEffect(() => {
    if (!isBusy) clearTimeout(timer.current)
  }, [isBusy])
  return () => {
    timer.current = setTimeout(() => void chat.stop(), STOP_PATIENCE_MS)
    stopTurn(chat.id).catch(() => chat.stop())
  }
}

/** A button that reads the turns before the first one, if there may be some. */
function Earlier({ chat, name, isBusy }: { chat: UseChatHelpers<ChatMessage>; name: string; isBusy: boolean }) {
  const [isAtBeginning, setAtBeginning] = useState(false)
  const [error, setError] = useState<unknown>(null)
  const turns = chat.messages.filter((message) => message.role === 'user')
  const first = turns[0]?.metadata?.turnId
  if (isAtBeginning || first === undefined || turns.length < TURNS) return null
  const load = async () => {
    try {
      const { messages } = await loadHistory(name, first)
      setAtBeginning(messages.length === 0)
      chat.setMessages((known) => [...messages, ...known])
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <>
      <button type="button" className="quiet" disabled={isBusy} onClick={() => void load()}>
        Show earlier messages
      </button>
      {error !== null && <Failure error={error} />}
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
    if (status === 'submitted' || messages.length === 0) return
    const timer = setTimeout(() => CHANGED_BY_TURNS.forEach((path) => void refresh(path)), REFRESH_MS)
    return () => clearTimeout(timer)
  }, [status, calls, messages.length])
}
