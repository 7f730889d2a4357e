import { memo, useState } from 'react'
import { useApprovals } from '../approvals'
import { hrefOf } from '../route'
import { Markdown } from '../ui/Markdown'
import { Question } from '../ui/Question'
import { previewArguments } from '../ui/format'
import { CopyButton, Json, State } from '../ui/parts'
import { callOf, textOf } from './messages'
import type { Call, ChatMessage, Part } from './messages'

const SILENT = ['completed', 'failed', 'interrupted', 'waiting']

interface Props {
  message: ChatMessage
  isLast: boolean
  isBusy: boolean
  onDecided: () => void
  onEdit: (text: string) => void
  onRegenerate: () => void
}

export const MessageView = memo(MessageViewOf, (before, after) => {
  return before.message === after.message && before.isBusy === after.isBusy && before.isLast === after.isLast
})

function MessageViewOf({ message, isLast, isBusy, onDecided, onEdit, onRegenerate }: Props) {
  const [isEditing, setEditing] = useState(false)
  const isUser = message.role === 'user'
  const isWriting = isBusy && isLast && !isUser
  return (
    <article className={`message ${message.role}`} aria-busy={isWriting} aria-label={isUser ? 'You' : 'Assistant'}>
      {isEditing ? (
        <EditForm
          text={textOf(message)}
          onCancel={() => setEditing(false)}
          onSave={(text) => {
            setEditing(false)
            onEdit(text)
          }}
        />
      ) : (
        <div className="message-body">
          {message.parts.map((part, index) => (
            <PartView key={index} part={part} isUser={isUser} onDecided={onDecided} />
          ))}
          <Outcome status={message.metadata?.status} />
        </div>
      )}
      {!isEditing && !isWriting && (
        <div className="message-actions">
          {isUser && (
            <button type="button" className="quiet" disabled={isBusy} onClick={() => setEditing(true)}>
              Edit
            </button>
          )}
          {!isUser && (
            <button type="button" className="quiet" disabled={isBusy} onClick={onRegenerate}>
              Regenerate
            </button>
          )}
          {textOf(message) && <CopyButton text={textOf(message)} />}
        </div>
      )}
    </article>
  )
}

/** How the turn of an answer ended, unless the failure below says it. A state of a later release is shown as it is. */
function Outcome({ status }: { status: string | undefined }) {
  if (status === undefined || SILENT.includes(status)) return null
  return status === 'cancelled' ? <p className="hint">Stopped.</p> : <State of={status} />
}

function PartView({ part, isUser, onDecided }: { part: Part; isUser: boolean; onDecided: () => void }) {
  if (part.type === 'text') return isUser ? <p className="said">{part.text}</p> : <Markdown text={part.text} />
  if (part.type === 'data-artifact') {
    return (
      <a className="artifact-card" href={hrefOf('artifacts', part.data.id)}>
        <strong>{part.data.title}</strong>
        <span className="hint">
          Document, version {part.data.version}
        </span>
      </a>
    )
  }
  const call = callOf(part)
  return call ? <CallView call={call} onDecided={onDecided} /> : null
}

const STATES: Record<string, string> = {
  'input-streaming': 'called',
  'input-available': 'running',
  'output-available': 'done',
  'output-error': 'failed',
  'output-denied': 'declined',
  'approval-requested': 'decided',
}

function stateOf({ state, isApproved }: Call): string {
  if (isApproved === false) return 'declined'
  return state === 'approval-responded' ? 'running' : (STATES[state] ?? state)
}

/** A call with its result, or, while the person has to decide on it, the question. */
function CallView({ call, onDecided }: { call: Call; onDecided: () => void }) {
  const approval = useApprovals().data?.items.find((each) => each.id === call.id)
  if (approval) return <Question approval={approval} isAnnounced onDecided={onDecided} />
  return (
    <details className="call">
      <summary>
        <code className="call-name">{call.name}</code>
        <span className="call-arguments">{previewArguments(call.input)}</span>
        <State of={stateOf(call)} />
      </summary>
      <Json label="Arguments" value={call.input} />
      {call.reason && (
        <p>
          {call.isApproved ? 'Approved' : 'Declined'}: {call.reason}
        </p>
      )}
      {call.errorText === null ? (
        call.output !== undefined && <Json label="Result" value={call.output} />
      ) : (
        <Json label="Error" value={call.errorText} />
      )}
    </details>
  )
}

function EditForm(props: { text: string; onSave: (text: string) => void; onCancel: () => void }) {
  const [text, setText] = useState(props.text)
  return (
    <form
      className="edit"
      onSubmit={(event) => {
        event.preventDefault()
        if (text.trim()) props.onSave(text)
      }}
      onKeyDown={(event) => event.key === 'Escape' && props.onCancel()}
    >
      <textarea aria-label="Edit the message" value={text} autoFocus rows={3} onChange={(event) => setText(event.target.value)} />
      <p className="hint">The new message replaces this one and everything after it. What tools did stays.</p>
      <div className="row end">
        <button type="button" className="quiet" onClick={props.onCancel}>
          Cancel
        </button>
        <button type="submit" className="primary">
          Send
        </button>
      </div>
    </form>
  )
}
