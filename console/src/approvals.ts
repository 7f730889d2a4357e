/** Calls of tools that the person is asked about, in all conversations, and decisions on them. */
import { authorizedFetch, problemOf, refresh, useResource, userPath } from './api'
import { readEvents } from './chat/events'
import type { Approval, Page } from './types'

const PATH = 'approvals'
const POLL_MS = 4000
/** After one of these events the turn runs, waits for other decisions, or has ended. */
const STEADY = new Set(['turn.resumed', 'turn.waiting', 'turn.completed', 'turn.failed', 'turn.cancelled', 'turn.interrupted'])

export type Decision = 'approve' | 'decline'

/** What came of a decision: the result of the call, or the error that the model is given. */
export interface Decided {
  decision: Decision
  result: unknown
  isError: boolean
}

/** The open questions, the oldest first. They are read again every few seconds, and when the window gets the focus. */
export function useApprovals() {
  return useResource<Page<Approval>>(`${PATH}?limit=200`, { refreshInterval: POLL_MS })
}

/**
 * Decide, and wait until the turn goes on, or waits for other decisions. The same decision again has the same effect.
 *
 * Throws a `Problem` if the question was decided otherwise or has expired.
 */
export async function decide({ turn_id, id }: Approval, decision: Decision, reason: string): Promise<Decided> {
  const response = await authorizedFetch(userPath(`turns/${turn_id}/approvals/${id}`), {
    method: 'POST',
    headers: { accept: 'text/event-stream', 'content-type': 'application/json' },
    body: JSON.stringify({ decision, reason: reason.trim() || null }),
  })
  if (!response.ok || response.body === null) {
    void refresh(PATH)
    throw problemOf(await response.text(), response.status)
  }
  const decided: Decided = { decision, result: undefined, isError: false }
  try {
    for await (const { event, data } of readEvents(response.body)) {
      if (event === 'tool_call.completed' && isOfCall(data, id)) Object.assign(decided, { result: data.result, isError: data.is_error })
      if (STEADY.has(event)) break
    }
  } catch {
    // The connection broke after the decision. The turn goes on without it.
  }
  await Promise.all([refresh(PATH), refresh('conversations')])
  return decided
}

function isOfCall(data: unknown, id: string): data is { result: unknown; is_error: boolean } {
  return typeof data === 'object' && data !== null && 'id' in data && data.id === id
}
