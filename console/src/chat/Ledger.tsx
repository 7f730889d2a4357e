/** The turns of a conversation as the service recorded them: calls, events, usage, and the token of each. */
import { useEffect, useRef, useState } from 'react'
import { call as request, isConnectionFailure, refresh, useResource } from '../api'
import { useApprovals } from '../approvals'
import type { ContextToken, Page, ToolCall, Turn } from '../types'
import { formatDuration, formatExactTime, preview, previewArguments } from '../ui/format'
import { announce } from '../ui/announce'
import { ConfirmButton, CopyButton, Failure, Icon, Json, State } from '../ui/parts'
import { followTurn } from './events'
import type { TurnEvent } from './events'

const RETRY_MS = 1000
const TURNS = 50

export function Ledger({ conversationId, onClose }: { conversationId: string | null; onClose: () => void }) {
  const path = conversationId && `conversations/${conversationId}/turns?limit=${TURNS}`
  const { data, error } = useResource<Page<Turn>>(path, { keepPreviousData: false })
  const tokens = useResource<Page<ContextToken>>(conversationId && `context-tokens?limit=${TURNS}`)
  return (
    <>
      <header className="ledger-head">
        <h2 id="ledger-title" tabIndex={-1}>
          Ledger
        </h2>
        <button type="button" className="quiet" onClick={onClose}>
          <Icon name="close" />
          <span className="visually-hidden">Close the ledger</span>
        </button>
      </header>
      {error && <Failure error={error} />}
      {!data?.items.length && <p className="hint pad">The turns of this conversation will be listed here, newest first.</p>}
      <ol className="turns">
        {data?.items.map((turn) => (
          <li key={turn.id}>
            <TurnView turn={turn} token={tokens.data?.items.find((token) => token.turn_id === turn.id)} />
          </li>
        ))}
      </ol>
      {data?.next_cursor && <p className="hint pad">These are the newest {TURNS} turns.</p>}
    </>
  )
}

function TurnView({ turn, token }: { turn: Turn; token: ContextToken | undefined }) {
  const [areEventsOpen, setEventsOpen] = useState(false)
  const duration = turn.finished_at === null ? null : Date.parse(turn.finished_at) - Date.parse(turn.started_at)
  return (
    <article className="turn" aria-label={`Turn of ${formatExactTime(turn.started_at)}`} data-replaced={turn.replaced_by ? '' : undefined}>
      <header className="row">
        <State of={turn.status} />
        {turn.replaced_by && <State of="replaced" />}
        {turn.undone_at && <State of="undone" />}
        <time dateTime={turn.started_at}>{formatExactTime(turn.started_at)}</time>
        <span className="turn-duration">{duration === null ? '' : formatDuration(duration)}</span>
      </header>
      <dl className="facts">
        <dt>Turn</dt>
        <dd>
          <code title={turn.id}>…{turn.id.slice(-12)}</code> <CopyButton text={turn.id} label="Copy id" />
        </dd>
        {turn.attempt > 1 && (
          <>
            <dt>Attempts</dt>
            <dd>{turn.attempt}, as processes continued it</dd>
          </>
        )}
        <dt>Agent</dt>
        <dd>{[turn.agent, turn.assistant !== turn.agent && turn.assistant, turn.model].filter(Boolean).join(' · ')}</dd>
        {turn.usage && (
          <>
            <dt>Tokens</dt>
            <dd>
              {turn.usage.input_tokens} in, {turn.usage.output_tokens} out, {turn.usage.requests} requests
            </dd>
          </>
        )}
        {token && (
          <>
            <dt>Access</dt>
            <dd>
              {token.grants.map((grant) => (
                <code key={grant} className="grant">
                  {grant}
                </code>
              ))}{' '}
              {token.revoked_at ? `revoked ${formatExactTime(token.revoked_at)}` : 'open'}
            </dd>
          </>
        )}
      </dl>
      {turn.error && (
        <p className="turn-error">
          <code>{turn.error.code}</code> {turn.error.detail}
        </p>
      )}
      {turn.tool_calls.length > 0 && (
        <ol className="calls">
          {turn.tool_calls.map((call) => (
            <li key={call.id}>
              <LedgerCall call={call} isOpen={turn.status === 'waiting' && call.result === null} />
            </li>
          ))}
        </ol>
      )}
      {turn.can_undo && <UndoButton turn={turn} />}
      <details onToggle={(event) => setEventsOpen(event.currentTarget.open)}>
        <summary>Events</summary>
        {areEventsOpen && <Events turnId={turn.id} state={JSON.stringify([turn.status, turn.undone_at, turn.tool_calls.map((call) => call.duration_ms)])} />}
      </details>
    </article>
  )
}

function UndoButton({ turn }: { turn: Turn }) {
  return (
    <ConfirmButton
      label="Undo"
      question="Take back what the tools of this turn did? Tasks, notes and documents become what they were before it."
      confirm="Undo"
      onConfirm={async () => {
        await request('POST', `turns/${turn.id}/undo`)
        announce('Undone.')
        await refresh('')
      }}
    />
  )
}

function LedgerCall({ call, isOpen }: { call: ToolCall; isOpen: boolean }) {
  const isAsked = useApprovals().data?.items.some((approval) => approval.id === call.id)
  const state = isAsked ? 'asks' : isOpen ? 'waiting' : stateOf(call)
  return (
    <details className="call">
      <summary>
        <code className="call-name">{call.name}</code>
        <span className="call-arguments">{previewArguments(call.arguments)}</span>
        <span className="call-duration">{call.duration_ms === null || isAsked || isOpen ? '' : formatDuration(call.duration_ms)}</span>
        <State of={state} />
      </summary>
      <Json label="Arguments" value={call.arguments} />
      <Json label={call.is_error ? 'Error' : 'Result'} value={call.result} />
      <p className="hint">
        Call <code>{call.id}</code>, {formatExactTime(call.started_at)}
      </p>
    </details>
  )
}

function stateOf({ is_error, result, duration_ms }: ToolCall): string {
  if (!is_error) return duration_ms === null ? 'running' : 'done'
  const isDeclined = typeof result === 'object' && result !== null && 'code' in result && result.code === 'declined'
  return isDeclined ? 'declined' : 'failed'
}

/**
 * The event log of a turn. It follows a running turn, and goes on where it was after a lost connection, and when the
 * `state` of the turn has changed: a turn that waited has further events.
 */
function Events({ turnId, state }: { turnId: string; state: string }) {
  const [events, setEvents] = useState<TurnEvent[]>([])
  const [error, setError] = useState<unknown>(null)
  const last = useRef('')
  useEffect(() => {
    const stop = new AbortController()
    const follow = async (): Promise<void> => {
      try {
        for await (const event of followTurn(turnId, last.current, stop.signal)) {
          if (stop.signal.aborted) return
          last.current = event.id
          setEvents((known) => [...known, event])
        }
      } catch (failure) {
        if (stop.signal.aborted) return
        if (!isConnectionFailure(failure)) return setError(failure)
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
        return follow()
      }
    }
    void follow()
    return () => stop.abort()
  }, [turnId, state])
  const withdrawn = withdrawnIn(events)
  return (
    <>
      {error !== null && <Failure error={error} />}
      <ol className="events" tabIndex={0} aria-label="Events">
        {events.map((event) => (
          <li key={event.id} data-withdrawn={withdrawn.has(event) ? '' : undefined}>
            <span className="event-seq">{event.id}</span> <code>{event.event}</code>{' '}
            <span className="event-data">{preview(shownData(event), 160)}</span>
            {withdrawn.has(event) && <span className="hint"> withdrawn</span>}
          </li>
        ))}
      </ol>
    </>
  )
}

/** The pieces of text that a later event has taken back, as a whole or in part. */
function withdrawnIn(events: TurnEvent[]): Set<TurnEvent> {
  const withdrawn = new Set<TurnEvent>()
  let pieces: { event: TurnEvent; end: number }[] = []
  let end = 0
  for (const event of events) {
    const { text, length } = event.data as { text?: string; length?: number }
    if (event.event === 'message.delta') pieces.push({ event, end: (end += [...(text ?? '')].length) })
    if (event.event !== 'message.withdrawn' || length === undefined) continue
    for (const piece of pieces) if (piece.end > length) withdrawn.add(piece.event)
    pieces = pieces.filter((piece) => piece.end <= length)
    end = length
  }
  return withdrawn
}

/** The data without what is shown already: the turn and the number. Of text and of calls only what tells them apart. */
function shownData({ event, data }: TurnEvent): unknown {
  if (typeof data !== 'object' || data === null) return data
  const { turn_id: _, seq: __, ...shown } = data as Record<string, unknown>
  switch (event) {
    case 'message.delta':
      return JSON.stringify(shown['text'])
    case 'tool_call.started':
    case 'approval.requested':
      return `${shown['name']} ${JSON.stringify(shown['arguments'])}`
    case 'tool_call.completed':
      return `${shown['name']} ${shown['is_error'] ? 'failed: ' : ''}${JSON.stringify(shown['result'])}`
    case 'approval.decided':
      return `${shown['decision']} by ${shown['by']}${shown['reason'] ? `: ${JSON.stringify(shown['reason'])}` : ''}`
    default:
      return shown
  }
}
