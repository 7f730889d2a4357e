/** A conversation: its messages, the composer, and the ledger beside them. */
import { generateId } from 'ai'
import { useEffect, useState } from 'react'
import type { ReactNode } from 'react'
import { flushSync } from 'react-dom'
import { isNamed, titleOf, useConversations } from '../Conversations'
import { call, refresh } from '../api'
import { hrefOf, navigate } from '../route'
import type { Conversation } from '../types'
import { ConfirmButton, Failure, Icon, ViewHeading } from '../ui/parts'
import { Ledger } from './Ledger'
import { Thread } from './Thread'
import { loadHistory } from './wire'
import type { History } from './wire'

const WIDE = '(min-width: 72rem)'
const EMPTY: History = { messages: [], activeStreamId: null }

export function ChatView({ name }: { name: string | null }) {
  const shown = useNameOrDraft(name)
  const { data } = useConversations()
  const conversation = data?.items.find((each) => isNamed(each, shown))
  const [conversationId, setConversationId] = useState<string | null>(null)
  const [isLedgerOpen, setLedgerOpen] = useState(() => matchMedia(WIDE).matches)
  const id = conversation?.id ?? conversationId
  const showLedger = (isOpen: boolean) => {
    // On a narrow screen the ledger takes the place of the conversation, so the focus must not stay behind.
    flushSync(() => setLedgerOpen(isOpen))
    document.getElementById(isOpen ? 'ledger-title' : 'ledger-toggle')?.focus()
  }
  return (
    <div className="chat" data-ledger={isLedgerOpen ? 'open' : 'closed'}>
      <section className="thread-pane" aria-label="Conversation">
        <ChatHeading conversation={conversation} isNew={name === null}>
          <button
            type="button"
            className="quiet"
            id="ledger-toggle"
            aria-expanded={isLedgerOpen}
            aria-controls="ledger"
            onClick={() => showLedger(!isLedgerOpen)}
          >
            <Icon name="ledger" /> Ledger
          </button>
        </ChatHeading>
        <LoadedThread key={shown} name={shown} conversation={conversation} isNew={name === null} onConversation={setConversationId} />
      </section>
      {isLedgerOpen && (
        <aside id="ledger" className="ledger" aria-label="Ledger">
          <Ledger conversationId={name === null ? null : id} onClose={() => showLedger(false)} />
        </aside>
      )}
    </div>
  )
}

/** The name in the address, or one made up for a conversation that has not begun. */
function useNameOrDraft(name: string | null): string {
  const [draft, setDraft] = useState(generateId)
  const [used, setUsed] = useState<string | null>(null)
  if (name === draft && used !== draft) setUsed(draft)
  if (name === null && used === draft) setDraft(generateId())
  return name ?? draft
}

function ChatHeading(props: { conversation: Conversation | undefined; isNew: boolean; children: ReactNode }) {
  const { conversation } = props
  const [isRenaming, setRenaming] = useState(false)
  return (
    <ViewHeading title={props.isNew ? 'New conversation' : titleOf(conversation)}>
      <div className="row">
        {conversation && !isRenaming && (
          <>
            <button type="button" className="quiet" onClick={() => setRenaming(true)}>
              Rename
            </button>
            <ConfirmButton
              label="Delete"
              question={`Delete “${titleOf(conversation)}” with its messages, turns and documents? Tasks are kept.`}
              confirm="Delete"
              onConfirm={async () => {
                await call('DELETE', `conversations/${conversation.id}`)
                navigate(hrefOf('chat'))
                await refresh('conversations')
              }}
            />
          </>
        )}
        {conversation && isRenaming && <RenameForm conversation={conversation} onDone={() => setRenaming(false)} />}
        {props.children}
      </div>
    </ViewHeading>
  )
}

function RenameForm({ conversation, onDone }: { conversation: Conversation; onDone: () => void }) {
  const [title, setTitle] = useState(conversation.title ?? '')
  const [error, setError] = useState<unknown>(null)
  const save = async () => {
    try {
      await call('PATCH', `conversations/${conversation.id}`, { title: title.trim() || null })
      await refresh('conversations')
      onDone()
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <form
      className="row rename"
      onSubmit={(event) => {
        event.preventDefault()
        void save()
      }}
      onKeyDown={(event) => event.key === 'Escape' && onDone()}
    >
      <input aria-label="Title" value={title} onChange={(event) => setTitle(event.target.value)} autoFocus maxLength={200} />
      <button type="submit">Save</button>
      <button type="button" className="quiet" onClick={onDone}>
        Cancel
      </button>
      {error !== null && <Failure error={error} />}
    </form>
  )
}

function LoadedThread(props: {
  name: string
  conversation: Conversation | undefined
  isNew: boolean
  onConversation: (id: string) => void
}) {
  const [history, setHistory] = useState<History | null>(props.isNew ? EMPTY : null)
  const [error, setError] = useState<unknown>(null)
  const [attempt, setAttempt] = useState(0)
  useEffect(() => {
    if (history !== null) return
    let isCurrent = true
    loadHistory(props.name)
      .then((loaded) => isCurrent && setHistory(loaded))
      .catch((failure: unknown) => isCurrent && setError(failure))
    return () => {
      isCurrent = false
    }
  }, [history, props.name, attempt])
  if (history) return <Thread {...props} initial={history} />
  if (error === null) return <p className="hint pad">Loading…</p>
  return (
    <Failure error={error}>
      <button
        type="button"
        onClick={() => {
          setError(null)
          setAttempt(attempt + 1)
        }}
      >
        Try again
      </button>
    </Failure>
  )
}
