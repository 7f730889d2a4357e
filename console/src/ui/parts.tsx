/** Small parts that every view uses. */
import { useEffect, useRef, useState } from 'react'
import type { ReactNode } from 'react'
import { announce } from './announce'
import { explain, Problem } from '../api'
import type { UndoConflict } from '../api'
import type { Page } from '../types'
import { NamedThing } from './Arguments'

const ICONS = {
  menu: 'M3 5h14M3 10h14M3 15h14',
  plus: 'M10 4v12M4 10h12',
  close: 'm5 5 10 10M15 5 5 15',
  send: 'M10 16V4M4.5 9.5 10 4l5.5 5.5',
  ledger: 'M4 3h12v14H4zM4 7.5h12M4 12h12M8 7.5V17',
} as const

export function Icon({ name }: { name: keyof typeof ICONS }) {
  return (
    <svg className="icon" viewBox="0 0 20 20" aria-hidden="true">
      <path d={ICONS[name]} />
    </svg>
  )
}

export function Json({ value, label }: { value: unknown; label: string }) {
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2)
  return (
    <figure className="json">
      <figcaption>{label}</figcaption>
      <pre tabIndex={0} aria-label={label}>
        {text ?? 'nothing'}
      </pre>
    </figure>
  )
}

/** A word for a state, with a mark that is not told by colour alone. An unknown state is shown as it is. */
export function State({ of: state }: { of: string }) {
  return (
    <span className="state" data-state={state}>
      {state.replaceAll('-', ' ')}
    </span>
  )
}

export function CopyButton({ text, label = 'Copy' }: { text: string; label?: string }) {
  const [done, setDone] = useState(false)
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      return announce('The browser does not allow copying.')
    }
    setDone(true)
    announce('Copied.')
    setTimeout(() => setDone(false), 1500)
  }
  // Browsers have no clipboard for pages without https, except on loopback.
  if (!navigator.clipboard) return null
  return (
    <button type="button" className="quiet" onClick={() => void copy()}>
      {done ? 'Copied' : label}
    </button>
  )
}

/** A command or a secret to copy. */
export function Copyable({ text, label }: { text: string; label: string }) {
  return (
    <div className="copyable">
      <div className="copyable-head">
        <span>{label}</span>
        <CopyButton text={text} />
      </div>
      <pre tabIndex={0} aria-label={label}>
        {text}
      </pre>
    </div>
  )
}

export function Failure({ error, children }: { error: unknown; children?: ReactNode }) {
  return (
    <div className="failure" role="alert">
      <p>{explain(error)}</p>
      {error instanceof Problem && error.conflicts.length > 0 && <Conflicts conflicts={error.conflicts} />}
      {children}
    </div>
  )
}

const REASONS: Record<string, string> = {
  changed: 'was changed since',
  deleted: 'was deleted since',
  exists: 'exists again',
  'in-use': 'is used elsewhere',
  constraint: 'does not fit what is stored now',
  external: 'A tool may have changed something in another service',
  'not-recorded': 'The state before the call is not recorded',
}

/** What prevents an undo. */
function Conflicts({ conflicts }: { conflicts: UndoConflict[] }) {
  return (
    <ul className="conflicts">
      {conflicts.map(({ tool_call_id, kind, id, reason }) => (
        <li key={`${tool_call_id} ${kind} ${id}`}>
          {kind && id && <NamedThing path={kind} id={id} />} {REASONS[reason] ?? reason}
        </li>
      ))}
    </ul>
  )
}

/** A sentence below a list that is not shown as a whole. */
export function MoreExist({ page }: { page: Page<unknown> | undefined }) {
  return page?.next_cursor ? <p className="hint">These are the newest {page.items.length}. The API lists all.</p> : null
}

/** A button that asks before it does what it says. */
export function ConfirmButton(props: { label: string; question: string; confirm: string; onConfirm: () => Promise<unknown> }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [error, setError] = useState<unknown>(null)
  const confirm = async () => {
    try {
      await props.onConfirm()
      dialog.current?.close()
    } catch (failure) {
      setError(failure)
    }
  }
  return (
    <>
      <button type="button" className="quiet danger" onClick={() => dialog.current?.showModal()}>
        {props.label}
      </button>
      <dialog ref={dialog} aria-label={props.question}>
        <p>{props.question}</p>
        {error !== null && <Failure error={error} />}
        <div className="row end">
          <button type="button" autoFocus onClick={() => dialog.current?.close()}>
            Keep
          </button>
          <button type="button" className="danger" onClick={() => void confirm()}>
            {props.confirm}
          </button>
        </div>
      </dialog>
    </>
  )
}

/** The heading of a view. It gets the focus when the person goes to the view, so that a screen reader begins there. */
export function ViewHeading({ title, children }: { title: string; children?: ReactNode }) {
  useEffect(() => {
    document.title = `${title} · Latchkey`
  }, [title])
  return (
    <header className="view-head">
      <h1 tabIndex={-1} id="view-title">
        {title}
      </h1>
      {children}
    </header>
  )
}

export function Brand() {
  return (
    <svg className="brand-mark" viewBox="0 0 32 32" aria-hidden="true">
      <circle cx="11.5" cy="11.5" r="5.5" />
      <path d="M15.6 15.6 26 26M21.5 21.5l3-3M24.5 24.5l2.5-2.5" />
    </svg>
  )
}
