/** The arguments of a tool call, for a person who decides on it. */
import { Fragment } from 'react'
import { useResource } from '../api'

/** Arguments that name something which has a title, and the paths of these things. */
const NAMED: Record<string, string> = { task_id: 'tasks', artifact_id: 'artifacts' }
const LONG = 120

export function Arguments({ value }: { value: unknown }) {
  const entries = typeof value === 'object' && value !== null ? Object.entries(value) : []
  if (entries.length === 0) return <p className="hint">Without arguments.</p>
  return (
    <dl className="facts arguments">
      {entries.map(([name, argument]) => (
        <Fragment key={name}>
          <dt>{name}</dt>
          <dd>
            <Argument name={name} value={argument} />
          </dd>
        </Fragment>
      ))}
    </dl>
  )
}

function Argument({ name, value }: { name: string; value: unknown }) {
  const path = NAMED[name]
  if (path && typeof value === 'string') return <NamedThing path={path} id={value} />
  const text = typeof value === 'string' ? value : JSON.stringify(value, null, 2)
  if (text.length <= LONG && !text.includes('\n')) return typeof value === 'string' ? text : <code>{text}</code>
  return (
    <pre tabIndex={0} aria-label={name}>
      {text}
    </pre>
  )
}

/** The title of a task or a document, and its id. Of anything else, its kind and its id. */
export function NamedThing({ path, id }: { path: string; id: string }) {
  const hasTitle = Object.values(NAMED).includes(path)
  const { data } = useResource<{ title: string }>(hasTitle ? `${path}/${encodeURIComponent(id)}` : null)
  const title = hasTitle ? data?.title : path
  return (
    <>
      {title && <strong>{title}</strong>} <code title={id}>{title ? `…${id.slice(-12)}` : id}</code>
    </>
  )
}
