import type { UseChatHelpers } from '@ai-sdk/react'
import { useCallback, useEffect, useRef, useState } from 'react'
import { isConnectionFailure } from '../api'
import { useApprovals } from '../approvals'
import type { Conversation } from '../types'
import { callOf } from './messages'
import type { ChatMessage } from './messages'
import { loadHistory } from './wire'
import type { History } from './wire'

const FIRST_DELAY_MS = 500
const LONGEST_DELAY_MS = 8000
/** Longer than the list of open questions is behind the messages. */
const SETTLED_MS = 1000

export interface Recovery {
  /** The connection broke, and the page tries to reach the service. */
  isReconnecting: boolean
  /** The last message did not reach the service. */
  isUnsent: boolean
  /** The page asks for the stream of the running turn, which has not begun here. */
  isResuming: boolean
  /** Show the conversation as the service has it, and follow the turn that runs. */
  recover: () => Promise<void>
}

/**
 * Go on after a broken connection, and follow what other tabs and clients do in the same conversation.
 *
 * The service keeps every turn, so the page asks for the conversation as it is and then follows the turn that runs.
 */
export function useRecovery(
  chat: UseChatHelpers<ChatMessage>,
  { name, conversation, initial }: { name: string; conversation: Conversation | undefined; initial: History },
): Recovery {
  const isReconnecting = chat.status === 'error' && isConnectionFailure(chat.error)
  const [isUnsent, setUnsent] = useState(false)
  const [isResuming, setResuming] = useState(initial.activeStreamId !== null)
  const current = useRef(chat)
  current.current = chat

  const resume = useCallback(async (turnId: string | null) => {
    setResuming(turnId !== null)
    if (turnId !== null) await current.current.resumeStream()
    setResuming(false)
  }, [])

  const recover = useCallback(async () => {
    const history = await loadHistory(name)
    const { messages, setMessages, clearError, status } = current.current
    // The person has sent a message meanwhile.
    if (status === 'submitted' || status === 'streaming') return
    const sent = messages.findLast((message) => message.role === 'user')
    const isStored = !sent || history.messages.some((message) => message.id === sent.id)
    setUnsent(!isStored)
    clearError()
    if (!isStored) return
    setMessages(history.messages)
    await resume(history.activeStreamId)
  }, [name, resume])

  useEffect(() => {
    void resume(initial.activeStreamId)
  }, [initial, resume])

  useEffect(() => {
    if (!isReconnecting) return
    let timer: ReturnType<typeof setTimeout>
    const attempt = (delay: number) => {
      timer = setTimeout(() => {
        recover().catch(() => attempt(Math.min(delay * 2, LONGEST_DELAY_MS)))
      }, delay)
    }
    attempt(FIRST_DELAY_MS)
    return () => clearTimeout(timer)
  }, [isReconnecting, recover])

  const hasAnswer = chat.messages.at(-1)?.role === 'assistant'
  const isIdle = chat.status === 'ready' || (chat.status === 'error' && !isReconnecting && hasAnswer)
  const stamp = conversation && `${conversation.updated_at} ${conversation.running_turn_id ?? ''}`
  const seen = useRef(stamp)
  useEffect(() => {
    if (!isIdle || stamp === seen.current) return
    const isFirst = seen.current === undefined
    seen.current = stamp
    if (!isFirst) recover().catch(() => {})
  }, [stamp, isIdle, recover])

  const closed = useClosedQuestions(chat.messages.at(-1))
  useEffect(() => {
    if (!isIdle || closed === '') return
    const timer = setTimeout(() => recover().catch(() => {}), SETTLED_MS)
    return () => clearTimeout(timer)
  }, [closed, isIdle, recover])

  useEffect(() => {
    if (chat.status === 'submitted') setUnsent(false)
  }, [chat.status])
  return { isReconnecting, isUnsent, isResuming, recover }
}

/** The calls that a message asks about and that are no longer open: decided in another tab, or expired. */
function useClosedQuestions(message: ChatMessage | undefined): string {
  const { data } = useApprovals()
  if (!data || data.next_cursor) return ''
  const asked = message?.parts.map(callOf).filter((call) => call?.state === 'approval-requested') ?? []
  return asked.flatMap((call) => (call && !data.items.some(({ id }) => id === call.id) ? [call.id] : [])).join()
}
