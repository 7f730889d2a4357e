import type { ChatStatus } from 'ai'
import { useEffect, useRef } from 'react'
import { announce } from '../ui/announce'
import { callOf, textOf } from './messages'
import type { ChatMessage } from './messages'

const LONGEST = 600
/** Longer than the messages are behind the status, because they are drawn at intervals. */
const SETTLED_MS = 150

/** Say that a turn began, called a tool and ended, and then the answer as a whole; never each delta. */
export function useAnnouncements(status: ChatStatus, messages: ChatMessage[]): void {
  const last = messages.at(-1)
  const latest = useRef(last)
  latest.current = last
  const wasBusy = useRef(false)
  const call = last?.role === 'assistant' ? last.parts.findLast((part) => callOf(part)) : undefined
  const { name, state } = (call && callOf(call)) ?? {}
  useEffect(() => {
    if (name && wasBusy.current) announce(`Tool ${name}: ${state?.replace('output-available', 'done').replaceAll('-', ' ')}.`)
  }, [name, state])
  useEffect(() => {
    if (status === 'submitted') announce('Message sent.')
    const isDone = status === 'ready' && wasBusy.current
    wasBusy.current = status === 'submitted' || status === 'streaming'
    if (!isDone) return
    const timer = setTimeout(() => {
      const message = latest.current
      // A turn that waits says itself what it asks.
      if (message?.role !== 'assistant' || message.parts.some((part) => callOf(part)?.state === 'approval-requested')) return
      if (textOf(message) === '' && message.metadata?.status !== 'cancelled') return
      announce(message.metadata?.status === 'cancelled' ? 'Stopped.' : `Answer: ${textOf(message).slice(0, LONGEST)}`)
    }, SETTLED_MS)
    return () => clearTimeout(timer)
  }, [status])
}
