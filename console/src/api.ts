/** Calls of the REST API with the person's token, and its failures as sentences. */
import useSWR, { mutate } from 'swr'
import type { SWRConfiguration, SWRResponse } from 'swr'
import { currentSession, endRefusedSession, freshSession } from './session'

const UNREACHABLE = 'The service cannot be reached.'

/** An effect of a tool call that cannot be undone. Without a `kind` and an `id` the call as a whole is the reason. */
export interface UndoConflict {
  tool_call_id: string
  kind: string | null
  id: string | null
  reason: string
}

/** A failure that the service explained (RFC 9457). The message is for the person. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly conflicts: UndoConflict[] = [],
  ) {
    super(message)
  }
}

/** A path of the API below the person's own id. */
export function userPath(path: string): string {
  return `/api/${encodeURIComponent(currentSession()?.userId ?? 'me')}/${path}`
}

/** `fetch` with the token. If the service refuses the token, it is renewed once, or the person signs in again. */
export async function authorizedFetch(input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> {
  const response = await fetchAs((await freshSession())?.token, input, init)
  if (response.status !== 401) return response
  const session = await freshSession(true)
  const second = session?.isDev ? await fetchAs(session.token, input, init) : response
  if (second.status === 401) endRefusedSession()
  return second
}

function fetchAs(token: string | undefined, input: RequestInfo | URL, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers)
  headers.set('authorization', `Bearer ${token ?? ''}`)
  return fetch(input, { ...init, headers })
}

/** Call an operation and return its JSON body. Throws a `Problem` with the service's explanation. */
export async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const init: RequestInit = { method }
  if (body !== undefined) Object.assign(init, { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
  const response = await authorizedFetch(userPath(path), init)
  if (!response.ok) throw problemOf(await response.text(), response.status)
  return (response.status === 204 ? undefined : await response.json()) as T
}

/** Read a resource, keep it, and show the kept one at once the next time. */
export function useResource<T>(path: string | null, options?: SWRConfiguration): SWRResponse<T, Error> {
  return useSWR<T, Error>(path, (key: string) => call<T>('GET', key), { keepPreviousData: true, ...options })
}

/** Read again every resource that is shown and whose path begins like this. */
export function refresh(prefix: string): Promise<unknown> {
  return mutate((key) => typeof key === 'string' && key.startsWith(prefix))
}

/** Forget what was read: the next person to sign in must not see it. */
export function forgetResources(): void {
  void mutate(() => true, undefined, { revalidate: false })
}

/** The explanation in a response, or what the status says. */
export function problemOf(text: string, status = 0): Problem {
  try {
    const body: unknown = JSON.parse(text)
    if (typeof body === 'object' && body !== null && 'detail' in body && typeof body.detail === 'string') {
      const conflicts = 'conflicts' in body && Array.isArray(body.conflicts) ? (body.conflicts as UndoConflict[]) : []
      return new Problem(body.detail, status, 'code' in body && typeof body.code === 'string' ? body.code : '', conflicts)
    }
  } catch {
    // Not JSON, for example a page of a proxy.
  }
  return new Problem(status ? `The service answered with status ${status}.` : text, status, '')
}

/** Whether a request failed below HTTP: the connection could not be made, or it broke. */
export function isConnectionFailure(error: unknown): boolean {
  return error instanceof TypeError
}

/** A failure as a sentence for the person. */
export function explain(error: unknown): string {
  if (isConnectionFailure(error)) return UNREACHABLE
  return error instanceof Problem ? error.message : problemOf(error instanceof Error ? error.message : String(error)).message
}
