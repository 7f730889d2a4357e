import { useState } from 'react'
import type { FormEvent } from 'react'
import { call, refresh, useResource } from '../api'
import type { Page, Task } from '../types'
import { announce } from '../ui/announce'
import { formatTime } from '../ui/format'
import { Failure, MoreExist, ViewHeading } from '../ui/parts'

const POLL_MS = 5000
const FILTERS = { pending: 'Pending', completed: 'Completed', '': 'All' } as const

export function TasksView() {
  const [status, setStatus] = useState<keyof typeof FILTERS>('')
  const { data, error } = useResource<Page<Task>>(`tasks?limit=200${status && `&status=${status}`}`, { refreshInterval: POLL_MS })
  const [failure, setFailure] = useState<unknown>(null)
  const [ticked, setTicked] = useState<Record<string, boolean>>({})
  const change = async (said: string, method: string, path: string, body?: unknown) => {
    try {
      setFailure(null)
      await call(method, path, body)
      await refresh('tasks')
      announce(said)
    } catch (problem) {
      setFailure(problem)
    }
  }
  // The box shows at once what the person did, and then what the service says.
  const tick = async (task: Task, isDone: boolean) => {
    setTicked((known) => ({ ...known, [task.id]: isDone }))
    await (isDone
      ? change(`Completed ${task.title}.`, 'POST', `tasks/${task.id}/complete`)
      : change(`Reopened ${task.title}.`, 'PATCH', `tasks/${task.id}`, { status: 'pending' }))
    setTicked(({ [task.id]: _, ...others }) => others)
  }
  return (
    <div className="view">
      <ViewHeading title="Tasks">
        <div className="segments" role="group" aria-label="Show">
          {Object.entries(FILTERS).map(([value, label]) => (
            <button
              key={value}
              type="button"
              aria-pressed={status === value}
              onClick={() => setStatus(value as keyof typeof FILTERS)}
            >
              {label}
            </button>
          ))}
        </div>
      </ViewHeading>
      <TaskForm onAdd={(title) => change(`Added ${title}.`, 'POST', 'tasks', { title })} />
      {(failure ?? error) != null && <Failure error={failure ?? error} />}
      {data?.items.length === 0 && <p className="hint">No tasks here. The assistant adds them with the tool add_task.</p>}
      <ul className="rows">
        {data?.items.map((task) => (
          <li key={task.id} className="task" data-status={task.status}>
            <label className="check grow">
              <input
                type="checkbox"
                checked={ticked[task.id] ?? task.status === 'completed'}
                onChange={(event) => void tick(task, event.target.checked)}
              />
              <span className="task-title">{task.title}</span>
            </label>
            {task.description && <p className="task-description">{task.description}</p>}
            {task.due_at && <span className="hint">due {formatTime(task.due_at)}</span>}
            <button type="button" className="quiet danger" onClick={() => void change(`Deleted ${task.title}.`, 'DELETE', `tasks/${task.id}`)}>
              Delete<span className="visually-hidden"> {task.title}</span>
            </button>
          </li>
        ))}
      </ul>
      <MoreExist page={data} />
    </div>
  )
}

function TaskForm({ onAdd }: { onAdd: (title: string) => Promise<void> }) {
  const [title, setTitle] = useState('')
  const submit = (event: FormEvent) => {
    event.preventDefault()
    void onAdd(title.trim()).then(() => setTitle(''))
  }
  return (
    <form className="row add" onSubmit={submit}>
      <input aria-label="New task" placeholder="New task" value={title} maxLength={500} required onChange={(event) => setTitle(event.target.value)} />
      <button type="submit">Add</button>
    </form>
  )
}
