/** A tool call that the assistant may make only if the person approves it. */
import { useEffect, useId, useState } from 'react'
import type { ReactNode } from 'react'
import { Problem } from '../api'
import { decide } from '../approvals'
import type { Decided, Decision } from '../approvals'
import { useTool } from '../tools'
import type { Approval } from '../types'
import { announce } from './announce'
import { Arguments } from './Arguments'
import { formatDayAndTime } from './format'
import { Failure } from './parts'

/** The statuses of a question that was decided otherwise, has expired, or is gone with its conversation. */
const CLOSED = [404, 409]

export function Question(props: {
  approval: Approval
  /** Say it when the question appears: it is part of the conversation that the person follows. */
  isAnnounced?: boolean
  /** After a decision here, or, with null, after it turned out that the question is no longer open. */
  onDecided: (decided: Decided | null) => void
  children?: ReactNode
}) {
  const { approval } = props
  const id = useId()
  const tool = useTool(approval.name)
  const [reason, setReason] = useState('')
  const [isDeciding, setDeciding] = useState(false)
  const [error, setError] = useState<unknown>(null)
  useEffect(() => {
    if (props.isAnnounced && !tool.isLoading) announce(`The assistant asks for your approval: ${tool.title}.`)
  }, [tool.isLoading])
  const choose = async (decision: Decision) => {
    setDeciding(true)
    setError(null)
    try {
      const decided = await decide(approval, decision, reason)
      announce(`${decision === 'approve' ? 'Approved' : 'Declined'}: ${tool.title}.`)
      props.onDecided(decided)
    } catch (failure) {
      setError(failure)
      setDeciding(false)
      if (!(failure instanceof Problem && CLOSED.includes(failure.status))) return
      announce(failure.message)
      props.onDecided(null)
    }
  }
  return (
    <section className="question" aria-labelledby={id} aria-busy={isDeciding}>
      <h2 id={id}>{tool.title}?</h2>
      <p>
        The assistant asks before it runs <code>{approval.name}</code>
        {tool.annotations?.destructiveHint && ', which may delete or overwrite something'}.
      </p>
      <Arguments value={approval.arguments} />
      <form className="row" onSubmit={(event) => event.preventDefault()}>
        <button type="button" className="primary" disabled={isDeciding} onClick={() => void choose('approve')}>
          Approve
        </button>
        <button type="button" className="danger" disabled={isDeciding} onClick={() => void choose('decline')}>
          Decline
        </button>
        <input
          aria-label="Reason (optional)"
          placeholder="Reason, optional"
          value={reason}
          maxLength={1000}
          disabled={isDeciding}
          onChange={(event) => setReason(event.target.value)}
        />
      </form>
      <p className="hint">
        Open until <time dateTime={approval.expires_at}>{formatDayAndTime(approval.expires_at)}</time>, then it is declined. A further message
        in the conversation declines it as well.
      </p>
      {error !== null && <Failure error={error} />}
      {props.children}
    </section>
  )
}
