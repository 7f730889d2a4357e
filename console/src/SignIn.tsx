import { useId, useState } from 'react'
import type { FormEvent } from 'react'
import { signIn } from './session'
import { Brand } from './ui/parts'

export function SignInView({ notice }: { notice: string | null }) {
  const id = useId()
  const [token, setToken] = useState('')
  const [remember, setRemember] = useState(false)
  const [fault, setFault] = useState<string | null>(null)
  const submit = (event: FormEvent) => {
    event.preventDefault()
    try {
      signIn(token, remember)
    } catch (error) {
      setFault(error instanceof Error ? error.message : String(error))
    }
  }
  return (
    <main className="sign-in">
      <h1>
        <Brand /> Latchkey
      </h1>
      {notice && <p className="notice">{notice}</p>}
      <form onSubmit={submit}>
        <label htmlFor={id}>User token (JWT)</label>
        <textarea
          id={id}
          value={token}
          onChange={(event) => setToken(event.target.value)}
          rows={5}
          required
          autoFocus
          onKeyDown={(event) => {
            if (event.key !== 'Enter') return
            event.preventDefault()
            event.currentTarget.form?.requestSubmit()
          }}
          spellCheck={false}
          autoComplete="off"
          aria-describedby={`${id}-hint`}
          aria-invalid={fault !== null}
        />
        <p id={`${id}-hint`} className="hint">
          <code>latchkey token USER</code> prints one where the service signs its own tokens. Otherwise your identity provider
          issues it. The token stays in this tab and never appears in an address.
        </p>
        <label className="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.target.checked)} />
          Remember on this device
        </label>
        {fault && (
          <p className="failure" role="alert">
            {fault}
          </p>
        )}
        <button type="submit" className="primary">
          Sign in
        </button>
      </form>
    </main>
  )
}
