import type { UseChatHelpers } from '@ai-sdk/react'
import { Failure } from '../ui/parts'
import type { ChatMessage } from './messages'
import { textOf } from './messages'
import type { Recovery } from './useRecovery'

/** What went wrong with the last message, and what can be done. */
export function TurnFailure(props: {
  chat: UseChatHelpers<ChatMessage>
  recovery: Recovery
  onRetry: () => void
  onResend: (text: string, messageId: string) => void
}) {
  const { chat, recovery } = props
  const sent = chat.messages.findLast((message) => message.role === 'user')
  if (recovery.isReconnecting) {
    return (
      <p className="notice" role="status">
        The connection was lost. The turn goes on; reconnecting…
      </p>
    )
  }
  if (recovery.isUnsent && sent) {
    return (
      <Failure error={new Error('The message did not reach the service.')}>
        <button type="button" onClick={() => props.onResend(textOf(sent), sent.id)}>
          Send again
        </button>
      </Failure>
    )
  }
  const error = chat.error ?? (recovery.isResuming ? null : storedFailure(chat))
  if (!error) return null
  // A request that was refused has made no turn, which another answer could replace.
  const isRefused = sent && chat.messages.at(-1) === sent && !sent.metadata?.turnId
  return (
    <Failure error={error}>
      <button type="button" onClick={() => (isRefused ? props.onResend(textOf(sent), sent.id) : props.onRetry())}>
        Try again
      </button>
    </Failure>
  )
}

/** The failure of the last turn after a reload: the message says it, or there is no answer. */
function storedFailure(chat: UseChatHelpers<ChatMessage>): Error | null {
  const last = chat.messages.at(-1)
  if (chat.status !== 'ready' || last === undefined) return null
  if (last.role === 'user') return new Error('There is no answer to this message.')
  const { status, error } = last.metadata ?? {}
  if (status === 'failed') return new Error(error?.detail ?? 'The turn failed.')
  return status === 'interrupted' ? new Error('The service was interrupted before the answer was complete.') : null
}
