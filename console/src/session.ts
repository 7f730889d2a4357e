/**
 * Who is signed in: the token, and where it is kept.
 *
 * A pasted token is kept for this tab, or on this device if the person asks for it. The token of `--dev` is in the page
 * itself and is kept in memory only.
 */
import { useSyncExternalStore } from 'react'

const KEY = 'latchkey-token'
const EXPIRED = 'Your token is no longer valid: it has expired, or the service has another key. Sign in again.'
const JWT = /eyJ[\w-]+\.[\w-]+\.[\w-]+/
const RENEW_BEFORE_MS = 60_000

export interface Session {
  token: string
  userId: string
  expiresAt: number | null
  /** The page came with a token (`--dev`), so it can get a new one by itself. */
  isDev: boolean
}

export interface SignIn {
  session: Session | null
  /** Why the person has to sign in again, if they were signed in. */
  notice: string | null
}

let state: SignIn = { session: initialSession(), notice: null }
const listeners = new Set<() => void>()

export function useSignIn(): SignIn {
  return useSyncExternalStore(subscribe, () => state)
}

export function currentSession(): Session | null {
  return state.session
}

/** Sign in with a pasted token. Throws an `Error` with a sentence for the person if it cannot be one. */
export function signIn(text: string, remember: boolean): void {
  // The token may stand in a line that was copied as a whole, and a terminal may have broken it.
  const token = JWT.exec(text.replaceAll(/\s/g, ''))?.[0] ?? ''
  if (token === '' && text.includes('lk_')) {
    throw new Error('This is a context token, which opens /mcp only. Paste a user token: `latchkey token USER` prints one.')
  }
  const session = sessionOf(token, false)
  if (session === null) throw new Error('This is not a JWT with a user (`sub`). Paste the whole token, as it was printed.')
  if (session.expiresAt !== null && session.expiresAt < Date.now()) throw new Error('This token has expired. Get a new one.')
  forget()
  storage(remember)?.setItem(KEY, token)
  update({ session, notice: null })
}

export function signOut(): void {
  forget()
  update({ session: null, notice: null })
}

/** The service has refused the token. The page of `--dev` goes on with its own; otherwise the person signs in again. */
export function endRefusedSession(): void {
  const refused = state.session
  forget()
  const session = refused?.isDev ? null : sessionInPage(document)
  update({ session, notice: session ? null : EXPIRED })
}

/** Return a session whose token is valid for a while. The page of `--dev` gets a new token by itself. */
export async function freshSession(isRefused = false): Promise<Session | null> {
  const session = state.session
  const expiresSoon = session?.expiresAt != null && session.expiresAt - Date.now() < RENEW_BEFORE_MS
  if (session?.isDev && (expiresSoon || isRefused)) {
    const renewed = await renewedSession()
    if (renewed) update({ session: renewed, notice: null })
  }
  return state.session
}

async function renewedSession(): Promise<Session | null> {
  const response = await fetch('/', { headers: { accept: 'text/html' }, cache: 'no-store' })
  return sessionInPage(new DOMParser().parseFromString(await response.text(), 'text/html'))
}

function initialSession(): Session | null {
  const kept = storage(false)?.getItem(KEY) ?? storage(true)?.getItem(KEY) ?? null
  return (kept === null ? null : sessionOf(kept, false)) ?? sessionInPage(document)
}

function sessionInPage(page: Document): Session | null {
  return sessionOf(page.querySelector<HTMLMetaElement>(`meta[name="${KEY}"]`)?.content ?? '', true)
}

/** Read the claims of a JWT. They are shown and not trusted: the service verifies the token. */
function sessionOf(token: string, isDev: boolean): Session | null {
  const payload = token.split('.')[1]
  if (!payload) return null
  try {
    const text = atob(payload.replaceAll('-', '+').replaceAll('_', '/'))
    const claims: unknown = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))))
    if (typeof claims !== 'object' || claims === null || !('sub' in claims) || typeof claims.sub !== 'string') return null
    const expiresAt = 'exp' in claims && typeof claims.exp === 'number' ? claims.exp * 1000 : null
    return { token, userId: claims.sub, expiresAt, isDev }
  } catch {
    return null
  }
}

function forget(): void {
  storage(false)?.removeItem(KEY)
  storage(true)?.removeItem(KEY)
}

/** The storage of the device or of the tab; none if the browser refuses it. */
function storage(ofDevice: boolean): Storage | null {
  try {
    return ofDevice ? localStorage : sessionStorage
  } catch {
    return null
  }
}

function update(changed: SignIn): void {
  state = changed
  for (const listener of listeners) listener()
}

function subscribe(listener: () => void): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}
