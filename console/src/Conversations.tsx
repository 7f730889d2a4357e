import { useState } from 'react'
import { useResource } from './api'
import { useApprovals } from './approvals'
import { hrefOf } from './route'
import type { Conversation, Page } from './types'
import { formatTime } from './ui/format'
import { Failure, Icon } from './ui/parts'

const STEP = 30
const MOST = 200
const POLL_MS = 3000

/** The name that the address of a conversation has. */
export function nameOf(conversation: Conversation): string {
  return conversation.client_conversation_id ?? conversation.id
}

export function titleOf(conversation: Conversation | undefined): string {
  return conversation?.title || conversation?.last_message?.content.slice(0, 60) || 'New conversation'
}

/** The latest conversations, read again every few seconds: another tab or another client may change them. */
export function useConversations(limit = STEP) {
  return useResource<Page<Conversation>>(`conversations?limit=${limit}`, { refreshInterval: POLL_MS })
}

export function Conversations({ current }: { current: string | null | undefined }) {
  const [limit, setLimit] = useState(STEP)
  const { data, error } = useConversations(limit)
  return (
    <section className="conversations" aria-labelledby="conversations-title">
      <div className="row">
        <h2 id="conversations-title">Conversations</h2>
        <a className="button" href={hrefOf('chat')} aria-current={current === null ? 'page' : undefined}>
          <Icon name="plus" /> New
        </a>
      </div>
      {error && !data && <Failure error={error} />}
      {data?.items.length === 0 && <p className="hint">None yet.</p>}
      <ul>
        {data?.items.map((conversation) => (
          <li key={conversation.id}>
            <ConversationLink conversation={conversation} isCurrent={isNamed(conversation, current)} />
          </li>
        ))}
      </ul>
      {data?.next_cursor && limit < MOST && (
        <button type="button" className="quiet" onClick={() => setLimit(Math.min(limit + STEP, MOST))}>
          Show more
        </button>
      )}
    </section>
  )
}

export function isNamed(conversation: Conversation, name: string | null | undefined): boolean {
  return name != null && (conversation.id === name || conversation.client_conversation_id === name)
}

function ConversationLink({ conversation, isCurrent }: { conversation: Conversation; isCurrent: boolean }) {
  const last = conversation.last_message
  const approvals = useApprovals()
  const isAsking = approvals.data?.items.some((approval) => approval.conversation_id === conversation.id)
  return (
    <a href={hrefOf('chat', nameOf(conversation))} aria-current={isCurrent ? 'page' : undefined}>
      <span className="conversation-title">{titleOf(conversation)}</span>
      <span className="conversation-meta">
        {isAsking ? (
          <span className="asks">asks</span>
        ) : conversation.running_turn_id ? (
          <span className="running">running</span>
        ) : (
          formatTime(conversation.updated_at)
        )}
      </span>
      {last && conversation.title && <span className="conversation-last">{last.content}</span>}
    </a>
  )
}
