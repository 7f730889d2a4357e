import { useState } from 'react'
import { useApprovals } from '../approvals'
import type { Decided } from '../approvals'
import { hrefOf } from '../route'
import { useTool } from '../tools'
import type { Approval } from '../types'
import { Arguments } from '../ui/Arguments'
import { Question } from '../ui/Question'
import { Failure, Json, MoreExist, State, ViewHeading } from '../ui/parts'

type DecidedHere = { approval: Approval } & Decided

/** Every open question, of all conversations, and what came of those that were decided here. */
export function ApprovalsView() {
  const { data, error } = useApprovals()
  const [decided, setDecided] = useState<DecidedHere[]>([])
  const open = data?.items.filter((approval) => !decided.some((each) => each.approval.id === approval.id)) ?? []
  const onDecided = (approval: Approval, result: Decided | null) => {
    if (result) setDecided((known) => [{ approval, ...result }, ...known])
    document.getElementById('view-title')?.focus()
  }
  return (
    <div className="view">
      <ViewHeading title="Approvals" />
      {error && !data && <Failure error={error} />}
      {data && open.length === 0 && <p className="hint">Nothing to decide. The assistant asks here before it runs a tool that needs your approval.</p>}
      <ul className="questions">
        {open.map((approval) => (
          <li key={approval.id}>
            <Question approval={approval} onDecided={(result) => onDecided(approval, result)}>
              <a href={hrefOf('chat', approval.conversation_id)}>Go to the conversation</a>
            </Question>
          </li>
        ))}
      </ul>
      <MoreExist page={data} />
      {decided.length > 0 && (
        <>
          <h2>Decided just now</h2>
          <ul className="questions">
            {decided.map((each) => (
              <li key={each.approval.id}>
                <DecidedQuestion {...each} />
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  )
}

function DecidedQuestion({ approval, decision, result, isError }: DecidedHere) {
  const tool = useTool(approval.name)
  const state = decision === 'decline' ? 'declined' : isError ? 'failed' : 'done'
  return (
    <details className="call">
      <summary>
        <span className="grow">{tool.title}</span>
        <State of={state} />
      </summary>
      <Arguments value={approval.arguments} />
      {result !== undefined && <Json label={isError ? 'Error' : 'Result'} value={result} />}
      <p>
        <a href={hrefOf('chat', approval.conversation_id)}>Go to the conversation</a>
      </p>
    </details>
  )
}
