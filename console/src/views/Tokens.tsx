import { useState } from 'react'
import type { FormEvent } from 'react'
import useSWR from 'swr'
import { titleOf, useConversations } from '../Conversations'
import { call, explain, refresh, useResource } from '../api'
import { requestTools, toolsIn } from '../tools'
import type { ContextToken, MintedToken, Page } from '../types'
import { announce } from '../ui/announce'
import { formatExactTime } from '../ui/format'
import { Copyable, Failure, MoreExist, State, ViewHeading } from '../ui/parts'

const POLL_MS = 5000
const LIFETIMES = { 600: '10 minutes', 3600: '1 hour', 86400: '1 day' } as const
const DEFAULT_GRANTS = ['tasks:read', 'tasks:write']

export function TokensView() {
  const { data, error } = useResource<Page<ContextToken>>('context-tokens?limit=200', { refreshInterval: POLL_MS })
  const [minted, setMinted] = useState<MintedToken | null>(null)
  const [failure, setFailure] = useState<unknown>(null)
  const own = data?.items.filter((token) => token.turn_id === null)
  const ofTurns = data?.items.filter((token) => token.turn_id !== null) ?? []
  const revoke = async (token: ContextToken) => {
    try {
      await call('DELETE', `context-tokens/${token.id}`)
      await refresh('context-tokens')
      announce('Revoked. No call under this token takes effect any more.')
    } catch (problem) {
      setFailure(problem)
    }
  }
  const current = data?.items.find((token) => token.id === minted?.id) ?? minted
  return (
    <div className="view">
      <ViewHeading title="Context tokens" />
      <p className="lead">
        A context token opens <code>/mcp</code> for another agent, limited to what you grant, and nothing else. Revoking it takes
        effect at once.
      </p>
      <MintForm onMint={setMinted} />
      {minted && current && <Minted token={minted.token} state={stateOf(current)} onRevoke={() => void revoke(current)} />}
      {(failure ?? error) != null && <Failure error={failure ?? error} />}
      <h2>Yours</h2>
      {own?.length === 0 && <p className="hint">None yet.</p>}
      <TokenTable tokens={own ?? []} onRevoke={(token) => void revoke(token)} />
      <details>
        <summary>Of turns ({ofTurns.length})</summary>
        <p className="hint">Each turn works under a token of its own, which is revoked when the turn ends.</p>
        <TokenTable tokens={ofTurns} onRevoke={(token) => void revoke(token)} />
      </details>
      <MoreExist page={data} />
    </div>
  )
}

function stateOf(token: ContextToken): string {
  if (token.revoked_at !== null) return 'revoked'
  return Date.parse(token.expires_at) < Date.now() ? 'expired' : 'active'
}

function MintForm({ onMint }: { onMint: (token: MintedToken) => void }) {
  const grants = useGrants()
  const [chosen, setChosen] = useState(DEFAULT_GRANTS)
  const [ttl, setTtl] = useState('3600')
  const [conversationId, setConversationId] = useState('')
  const [failure, setFailure] = useState<unknown>(null)
  const conversations = useConversations()
  const submit = async (event: FormEvent) => {
    event.preventDefault()
    try {
      setFailure(null)
      const body = { grants: chosen, ttl_s: Number(ttl), conversation_id: conversationId || null }
      onMint(await call<MintedToken>('POST', 'context-tokens', body))
      announce('Minted. Copy the token now: it is shown once.')
      await refresh('context-tokens')
    } catch (problem) {
      setFailure(problem)
    }
  }
  const toggle = (grant: string) =>
    setChosen(chosen.includes(grant) ? chosen.filter((each) => each !== grant) : [...chosen, grant])
  return (
    <form className="mint" onSubmit={(event) => void submit(event)}>
      <fieldset>
        <legend>Grants</legend>
        {grants.map((grant) => (
          <label key={grant} className="check">
            <input type="checkbox" checked={chosen.includes(grant)} onChange={() => toggle(grant)} />
            <code>{grant}</code>
          </label>
        ))}
      </fieldset>
      <div className="row">
        <label>
          Valid for{' '}
          <select value={ttl} onChange={(event) => setTtl(event.target.value)}>
            {Object.entries(LIFETIMES).map(([seconds, label]) => (
              <option key={seconds} value={seconds}>
                {label}
              </option>
            ))}
          </select>
        </label>
        <label>
          Conversation{' '}
          <select value={conversationId} onChange={(event) => setConversationId(event.target.value)}>
            <option value="">any</option>
            {conversations.data?.items.map((conversation) => (
              <option key={conversation.id} value={conversation.id}>
                {titleOf(conversation)}
              </option>
            ))}
          </select>
        </label>
        <button type="submit" className="primary" disabled={chosen.length === 0}>
          Mint token
        </button>
      </div>
      {failure !== null && <Failure error={failure} />}
    </form>
  )
}

/** The grants that this service has, from its OpenAPI document: an app may add its own. */
function useGrants(): string[] {
  const { data } = useSWR('/schema/openapi.json', async (path: string) => {
    const document = (await (await fetch(path)).json()) as { components: { schemas: { Grant: { enum: string[] } } } }
    return document.components.schemas.Grant.enum
  })
  return data ?? DEFAULT_GRANTS
}

function Minted({ token, state, onRevoke }: { token: string; state: string; onRevoke: () => void }) {
  const address = `${location.origin}/mcp`
  return (
    <section className="minted" aria-label="New token">
      <div className="row">
        <h2>New token</h2>
        <State of={state} />
        {state === 'active' && (
          <button type="button" className="danger" onClick={onRevoke}>
            Revoke
          </button>
        )}
      </div>
      <p className="hint">It is shown here once, and stored as a hash only.</p>
      <Copyable label="Token" text={token} />
      <Copyable label="MCP address" text={address} />
      <Copyable
        label="Claude Code"
        text={`claude mcp add --transport http latchkey ${address} --header "Authorization: Bearer ${token}"`}
      />
      <TryToken token={token} key={state} />
    </section>
  )
}

/** Ask `/mcp` with the token for its tools: what it opens, and that it opens nothing once it is revoked. */
function TryToken({ token }: { token: string }) {
  const [answer, setAnswer] = useState<string | null>(null)
  const tryIt = async () => {
    const response = await requestTools(token)
    const names = response.ok ? toolsIn(await response.json()).map((tool) => tool.name) : []
    const result = response.ok ? names.join(', ') || 'No tools.' : 'The token opens nothing.'
    setAnswer(`${response.status} ${response.ok ? 'OK' : 'refused'}. ${result}`)
    announce(`${response.status}. ${result}`)
  }
  return (
    <div className="row">
      <button type="button" onClick={() => tryIt().catch((failure: unknown) => setAnswer(explain(failure)))}>
        List its tools
      </button>
      {answer !== null && <output>{answer}</output>}
    </div>
  )
}

function TokenTable({ tokens, onRevoke }: { tokens: ContextToken[]; onRevoke: (token: ContextToken) => void }) {
  if (tokens.length === 0) return null
  return (
    <ul className="rows">
      {tokens.map((token) => (
        <li key={token.id}>
          <State of={stateOf(token)} />
          <span className="grow">
            {token.grants.map((grant) => (
              <code key={grant} className="grant">
                {grant}
              </code>
            ))}
          </span>
          <span className="hint">
            {token.conversation_id && token.turn_id === null ? 'one conversation, ' : ''}
            {token.revoked_at ? `revoked ${formatExactTime(token.revoked_at)}` : `until ${formatExactTime(token.expires_at)}`}
          </span>
          {stateOf(token) === 'active' && (
            <button type="button" className="quiet danger" onClick={() => onRevoke(token)}>
              Revoke
            </button>
          )}
        </li>
      ))}
    </ul>
  )
}
