import type { ChatStatus } from 'ai'
import { useEffect, useRef } from 'react'
import { announce } from '../ui/announce'
import { callOf, textOf } from './messages'
import type { ChatMessage } from './messages'

const LONGEST = 600

/** Say that a turn began, called a tool and ended, and then the answer as a whole; never each delta. */
export function useAnnouncements(status: ChatStatus, messages: ChatMessage[]): void {
  const last = messages.at(-1)
  const before = useRef(status)
  const calls = last?.role === 'assistant' ? last.parts.flatMap((part) => callOf(part) ?? []) : []
  const latest = calls.at(-1)
  const call = latest ? `Tool ${latest.name}: ${latest.state.replace('output-available', 'done').replaceAll('-', ' ')}.` : ''
  useEffect(() => {
    if (call && status === 'streaming') announce(call)
  }, [call, status])
  useEffect(() => {
    if (status === 'submitted') announce('Message sent.')
    if (status === 'ready' && before.current === 'streaming' && last?.role === 'assistant') {
      announce(last.metadata?.status === 'cancelled' ? 'Stopped.' : `Answer: ${textOf(last).slice(0, LONGEST)}`)
    }
    before.current = status
  }, [status, last])
}
